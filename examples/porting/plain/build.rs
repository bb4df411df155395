//! Compiles the BPF half and its skeleton.
fn main() -> anyhow::Result<()> {
    scx_cargo::BpfBuilder::new()?.enable_skel("src/bpf/steady.bpf.c", "bpf").build()
}

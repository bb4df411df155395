//! Compiles the BPF programs of what runs in the lab.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("reader", "src/bpf/reader.bpf.c")?;
    scx_upgrade_build::policy("walk", "src/bpf/walk.bpf.c")
}

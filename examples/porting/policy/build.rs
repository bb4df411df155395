//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("steady", "src/bpf/steady.bpf.c")
}

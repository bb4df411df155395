//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("core", "src/bpf/core.bpf.c")
}

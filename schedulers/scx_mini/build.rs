//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("mini", "src/bpf/mini.bpf.c")
}

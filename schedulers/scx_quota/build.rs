//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("quota", "src/bpf/quota.bpf.c")
}

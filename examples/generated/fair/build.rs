//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("policy", "src/bpf/policy.bpf.c")
}

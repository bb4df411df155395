//! Compiles the two versions, apart.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("fair_v1", "src/bpf/fair_v1.bpf.c")?;
    scx_upgrade_build::policy("fair_v2", "src/bpf/fair_v2.bpf.c")
}

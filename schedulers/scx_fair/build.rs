//! Compiles the versions, apart.
fn main() -> anyhow::Result<()> {
    for version in ["fair_v1", "fair_v2", "fair_v3"] {
        scx_upgrade_build::policy(version, &format!("src/bpf/{version}.bpf.c"))?;
    }
    Ok(())
}

//! Compiles the two versions, apart.
fn main() -> anyhow::Result<()> {
    for version in ["dozy_1", "dozy_2"] {
        scx_upgrade_build::policy(version, &format!("src/bpf/{version}.bpf.c"))?;
    }
    Ok(())
}

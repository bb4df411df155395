//! Compiles the BPF programs of what runs in the lab.
fn main() -> anyhow::Result<()> {
    for name in ["reader", "walk", "access", "pairs"] {
        scx_upgrade_build::policy(name, &format!("src/bpf/{name}.bpf.c"))?;
    }
    Ok(())
}

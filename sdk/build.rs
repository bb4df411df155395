//! Compiles the host.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    scx_upgrade_build::policy("host", "../bpf/host.bpf.c")?;
    Ok(())
}

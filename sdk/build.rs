//! Compiles the host, and the sweep that gets its plan as instructions.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    scx_upgrade_build::policy("host", "../bpf/host.bpf.c")?;
    scx_upgrade_build::policy("compiled", "../bpf/compiled.bpf.c")?;
    Ok(())
}

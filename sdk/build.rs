//! Compiles the host, and what reads and writes its records for snapshots.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    scx_upgrade_build::policy("host", "../bpf/host.bpf.c")?;
    scx_upgrade_build::policy("snapshot", "../bpf/snapshot.bpf.c")?;
    Ok(())
}

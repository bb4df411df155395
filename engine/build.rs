//! Compiles the host, the sweep that gets its plan as instructions, and what reads and writes records for snapshots,
//! what the guard sees during probation, what only BPF can read of the machine, and the tracepoint of ejections.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    scx_upgrade_build::policy("host", "../bpf/host.bpf.c")?;
    scx_upgrade_build::policy("compiled", "../bpf/compiled.bpf.c")?;
    scx_upgrade_build::policy("snapshot", "../bpf/snapshot.bpf.c")?;
    scx_upgrade_build::policy("guard", "../bpf/guard.bpf.c")?;
    scx_upgrade_build::policy("machine", "../bpf/machine.bpf.c")?;
    scx_upgrade_build::policy("exits", "../bpf/exits.bpf.c")?;
    Ok(())
}

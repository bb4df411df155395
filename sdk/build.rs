//! Compiles the host, and the tools: the sweep that gets its plan as instructions, what reads and writes records for
//! snapshots, what the guard sees during probation, what only BPF can read of the machine, and the tracepoint of ejections.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    scx_upgrade_build::policy("host", "../bpf/host/main.bpf.c")?;
    for tool in ["compiled", "snapshot", "guard", "machine", "exits"] {
        scx_upgrade_build::policy(tool, &format!("../bpf/tools/{tool}.bpf.c"))?;
    }
    Ok(())
}

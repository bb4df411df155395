//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("lat", "src/bpf/lat.bpf.c")
}

//! Compiles the BPF half.
fn main() -> anyhow::Result<()> {
    scx_upgrade_build::policy("mix", "src/bpf/mix.bpf.c")
}

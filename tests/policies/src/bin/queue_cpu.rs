//! See `src/bpf/queue_cpu.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("queue_cpu"))
}

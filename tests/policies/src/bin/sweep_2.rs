//! See `src/bpf/sweep_2.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("sweep_2"))
}

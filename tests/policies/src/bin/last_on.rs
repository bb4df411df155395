//! See `src/bpf/last_on.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("last_on"))
}

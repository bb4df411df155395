//! See `src/bpf/last_off.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("last_off"))
}

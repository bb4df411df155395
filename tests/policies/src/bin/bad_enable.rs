//! See `src/bpf/bad_enable.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("bad_enable"))
}

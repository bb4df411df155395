//! See `src/bpf/bad_type.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("bad_type"))
}

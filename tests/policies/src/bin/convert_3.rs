//! See `src/bpf/convert_3.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("convert_3"))
}

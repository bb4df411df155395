//! See `src/bpf/convert_2.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("convert_2"))
}

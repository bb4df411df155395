//! See `src/bpf/ledger_b.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("ledger_b"))
}

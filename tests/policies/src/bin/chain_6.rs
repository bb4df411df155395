//! See `src/bpf/chain_6.bpf.c`.
fn main() -> std::process::ExitCode {
    test_policies::main(scx_upgrade_sdk::policy_object!("chain_6"))
}

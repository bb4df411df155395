//! scx_fair, version 1.
fn main() -> std::process::ExitCode {
    scx_fair::main(scx_upgrade_sdk::policy_object!("fair_v1", "1.0.0"), "1.0.0")
}

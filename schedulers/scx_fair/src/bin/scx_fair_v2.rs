//! scx_fair, version 2.
fn main() -> std::process::ExitCode {
    scx_fair::main(scx_upgrade_sdk::policy_object!("fair_v2", "2.0.0"), "2.0.0")
}

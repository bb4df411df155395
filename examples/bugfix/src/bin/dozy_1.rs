//! dozy, version 1.
fn main() -> std::process::ExitCode {
    bugfix::main(scx_upgrade_sdk::policy_object!("dozy_1"), "1.0.0")
}

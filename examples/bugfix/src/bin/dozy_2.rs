//! dozy, version 2.
fn main() -> std::process::ExitCode {
    bugfix::main(scx_upgrade_sdk::policy_object!("dozy_2"), "2.0.0")
}

//! scx_fair, version 3, the current one.

scx_upgrade_sdk::policy!(fair_v3, "3.0.0");

fn main() -> std::process::ExitCode {
    scx_fair::main(fair_v3::policy(&fair_v3::Config::default()), "3.0.0")
}

//! What the programs of the book's policies share.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::RunArgs;

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    run: RunArgs,
}

/// Run the policy.
pub fn main(policy: Policy) -> ExitCode {
    policy.run(&Options::parse().run, |_| {})
}

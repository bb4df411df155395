//! A scheduler with a bug, in the version that has it and the one that has not. See README.md.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::RunArgs;

/// The task with the smallest virtual time runs next
#[derive(Debug, Parser)]
#[command(name = "dozy", version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,
}

/// `main` of a version, whose BPF half is in `policy`: runs it, and says now and then how long its tasks have waited.
pub fn main(mut policy: Policy, version: &'static str) -> ExitCode {
    let matches = Options::command().version(version).get_matches();
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    policy.set_version(version);
    policy.run(&options.run, |running| match running.read::<u64>("longest_wait_ns") {
        Ok(ns) => println!("longest wait so far: {} ms", ns / 1_000_000),
        Err(error) => eprintln!("{error}"),
    })
}

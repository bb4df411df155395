//! scx_fair: weighted virtual-time fairness on one queue. What both versions' programs share.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::RunArgs;

/// Weighted virtual-time fairness on one queue
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,
}

/// `main` of a version, whose BPF half is in `policy`.
pub fn main(mut policy: Policy, version: &'static str) -> ExitCode {
    let matches = Options::command().version(version).get_matches();
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    policy.set_version(version).set("slice_ns", &(options.slice_us * 1000));
    policy.run(&options.run, |running| {
        let count = |name| running.read::<u64>(name).unwrap_or_default();
        println!("direct {} queued {}", count("nr_direct"), count("nr_queued"));
    })
}

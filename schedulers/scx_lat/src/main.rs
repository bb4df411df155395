//! scx_lat: options and statistics.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(lat);

/// Latency: who runs briefly and often runs first, and at once
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,

    /// How much earlier a deadline must be for its task to take a CPU from another, microseconds
    #[arg(long, default_value_t = 500, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=100_000))]
    margin_us: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = lat::Config {
        slice_ns: options.slice_us * 1000,
        margin_ns: options.margin_us * 1000,
        ..lat::Config::default()
    };
    lat::policy(&config).run(&options.run, |running| match running.stats::<lat::Stats>() {
        Ok(s) => println!("direct {} queued {} preempted {}", s.nr_direct, s.nr_queued, s.nr_preempted),
        Err(error) => eprintln!("{error}"),
    })
}

//! scx_mini: options and statistics.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(mini);

/// Weighted fairness, one queue for each LLC
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = mini::Config { slice_ns: options.slice_us * 1000 };
    mini::policy(&config).run(&options.run, |running| match running.stats::<mini::Stats>() {
        Ok(stats) => println!("direct {} queued {}", stats.nr_direct, stats.nr_queued),
        Err(error) => eprintln!("{error}"),
    })
}

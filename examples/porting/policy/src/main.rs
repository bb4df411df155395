//! steady, as a policy: swapped in, and out again, while the machine runs.

// ANCHOR: main
use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(steady);

/// One queue by virtual time
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest turn on the CPU, microseconds
    #[arg(long, default_value_t = 5000)]
    slice_us: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = steady::Config { slice_ns: options.slice_us * 1000 };
    steady::policy(&config).run(&options.run, |_| {})
}
// ANCHOR_END: main

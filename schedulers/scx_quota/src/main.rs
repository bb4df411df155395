//! scx_quota: options and statistics.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(quota);

/// Bandwidth control of cgroups by the scheduler itself, from cpu.max
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,

    /// A task that has waited for its quota for so long has one turn all the same, milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=15_000))]
    patience_ms: u64,

    /// Show the account of this cgroup with the statistics; may be given several times
    #[arg(long, value_name = "FOLDER")]
    cgroup: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config =
        quota::Config { slice_ns: options.slice_us * 1000, patience_ns: options.patience_ms * 1_000_000 };
    quota::policy(&config).run(&options.run, |running| {
        match running.stats::<quota::Stats>() {
            Ok(s) => println!(
                "direct {} queued {} parked {} let through {} throttlings {}",
                s.nr_direct, s.nr_queued, s.nr_parked, s.nr_let_through, s.nr_throttlings
            ),
            Err(error) => eprintln!("{error}"),
        }
        for folder in &options.cgroup {
            match running.cgroup::<quota::Cgroup>(folder) {
                Ok(c) => println!(
                    "{}: to be paid {} us, throttled {} times, {} ms",
                    folder.display(),
                    c.quota_used_ns / 1000,
                    c.quota_throttlings,
                    c.quota_throttled_ns / 1_000_000
                ),
                Err(error) => eprintln!("{error}"),
            }
        }
    })
}

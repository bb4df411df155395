//! scx_core: options and statistics.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(core);

/// Core scheduling: one trust group (cgroup) at a time on the siblings of a core
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,

    /// How deep below the root the cgroups are that trust themselves, with all below them
    #[arg(long, default_value_t = 1, value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..=32))]
    depth: u32,

    /// How long a task may wait before other groups on the same core get no more turns, milliseconds
    #[arg(long, default_value_t = 10, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=5000))]
    drain_ms: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = core::Config {
        slice_ns: options.slice_us * 1000,
        drain_ns: options.drain_ms * 1_000_000,
        depth: options.depth,
    };
    core::policy(&config).run(&options.run, |running| match running.stats::<core::Stats>() {
        Ok(s) => println!(
            "forced idle {} times {} ms, drains {}, intruders {}",
            s.nr_forced_idle,
            s.forced_idle_ns / 1_000_000,
            s.nr_drains,
            s.nr_intruders
        ),
        Err(error) => eprintln!("{error}"),
    })
}

//! `sweep`: what a sweep costs, with many threads and cgroups, as JSON.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use guest::load::run_if_worker;
use guest::sweep;

/// Measure the sweep beside the bare walk over all tasks and the kernel's own detach and attach
///
/// Needs root, a kernel with sched_ext, and scx-upgrade, sweep_1 and sweep_2 in PATH or beside it.
#[derive(Debug, Parser)]
struct Args {
    /// Live threads in all
    #[arg(long, default_value_t = 40_000)]
    threads: usize,
    /// Cgroups
    #[arg(long, default_value_t = 2_000)]
    cgroups: usize,
    /// How often to measure, without the rounds in which delays are
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Rounds in which delays are measured
    #[arg(long, default_value_t = 3)]
    delays: usize,
    /// Length of each of the two windows of such a round
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    window: f64,
}

fn main() -> Result<()> {
    run_if_worker();
    let args = Args::parse();
    let window = Duration::try_from_secs_f64(args.window).context("--window")?;
    let report = sweep::run(&sweep::Options {
        threads: args.threads,
        cgroups: args.cgroups,
        rounds: args.rounds,
        delays: args.delays,
        window,
        worker: None,
    })?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

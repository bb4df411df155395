//! `demo`: replaces a scheduler under load, in place and the kernel's own way, and reports.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use guest::demo::{self, table};
use guest::load::run_if_worker;

/// Replace a sched_ext scheduler under a load of many threads: in place, back, and the kernel's own way
///
/// Needs root, a kernel with sched_ext, and scx-upgrade, scx_fair_v1 and scx_fair_v2 in PATH or beside it. Exits with 1
/// if anything is not as it must be; delays are only shown.
#[derive(Debug, Parser)]
struct Args {
    /// Live threads in all
    #[arg(long, default_value_t = 40_000)]
    threads: usize,
    /// Length of each window of measurement: at the 1 ms of the probe, 10 s leave 10 samples above p99.9
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    window: f64,
    /// How often swap, rollback, and detach and attach are measured, in turn; the table shows medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How often a window is measured at most, where the machine stands still in it
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    attempts: u16,
    /// Write the report (JSON) to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Draw the wake-up delays around a swap into this file (SVG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print the report as JSON instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    run_if_worker();
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it must be.
fn run(args: &Args) -> Result<bool> {
    let window = Duration::try_from_secs_f64(args.window).context("--window")?;
    let report = demo::run(&demo::Options {
        threads: args.threads,
        window,
        rounds: args.rounds.into(),
        attempts: args.attempts.into(),
        picture: args.picture.clone(),
    })?;
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(file) = &args.report {
        std::fs::write(file, &json).with_context(|| format!("writing {}", file.display()))?;
    }
    if args.json {
        println!("{json}");
    } else {
        println!("\n{}", table::render(&report));
    }
    for failure in &report.failures {
        eprintln!("demo: FAILED: {failure}");
    }
    Ok(report.failures.is_empty())
}

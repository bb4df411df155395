//! `probe`: measures for a while how late a thread that asked to be woken is woken.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use guest::probe::{Probe, ProbeSpec};

/// Measure wake-up delay: sleep to a point in time once a period, record how late that was
#[derive(Debug, Parser)]
struct Args {
    /// How long to measure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Time between two points, in microseconds
    #[arg(long, default_value_t = 1_000)]
    period_us: u64,
    /// Threads that probe
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let probe =
        Probe::with(ProbeSpec { period: Duration::from_micros(args.period_us), threads: args.threads })?;
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let window = probe.stop();
    if args.json {
        println!("{}", serde_json::to_string(&window)?);
        return Ok(());
    }
    println!("{} samples, {} of them missed, {} lost", window.samples, window.missed, window.lost);
    println!(
        "delay in us: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
        window.p50_us, window.p99_us, window.p999_us, window.max_us
    );
    Ok(())
}

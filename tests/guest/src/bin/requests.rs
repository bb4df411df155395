//! `requests`: sends requests to a server thread for a while and prints how long the answers took.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use guest::requests::{self, RequestSpec};

/// Send a request once a period, and measure how long the answer takes
#[derive(Debug, Parser)]
struct Args {
    /// How long to go on
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long before, in seconds, without counting
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Time between two requests, in microseconds
    #[arg(long, default_value_t = 10_000)]
    period_us: u64,
    /// How long the server computes for each, in microseconds
    #[arg(long, default_value_t = 500)]
    work_us: u64,
    /// Wait for a byte on standard input before the first, so that the process can be put into a cgroup
    #[arg(long)]
    wait: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.wait {
        std::io::Read::read_exact(&mut std::io::stdin(), &mut [0])?;
    }
    let answers = requests::run(RequestSpec {
        period: Duration::from_micros(args.period_us),
        work: Duration::from_micros(args.work_us),
        warm_up: Duration::from_secs_f64(args.warm_up),
        length: Duration::from_secs_f64(args.seconds),
    })?;
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

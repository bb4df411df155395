//! `load`: keeps a mixed load of live threads up for a while and says how far each kind came.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use guest::load::{Load, LoadSpec, Progress, raise_limits, run_if_worker};
use serde::Serialize;

/// Keep a mixed load of live threads up: nearly all asleep, some computing, passing messages, forking, spawning
#[derive(Debug, Parser)]
struct Args {
    /// Live threads in all
    #[arg(long, default_value_t = 200)]
    threads: usize,
    /// How long to keep them up
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Wake-ups a second of all sleepers together
    #[arg(long)]
    wakes_per_s: Option<f64>,
    /// Threads that compute
    #[arg(long)]
    cpu_bound: Option<usize>,
    /// Let them compute without a rest
    #[arg(long)]
    cpu_forever: bool,
    /// Their nice value
    #[arg(long, allow_negative_numbers = true)]
    cpu_nice: Option<i32>,
    /// Worker processes that share the threads
    #[arg(long)]
    processes: Option<usize>,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First raise the system's limits so that the threads fit (root)
    #[arg(long)]
    raise_limits: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    /// Live threads of the load, from `/proc`, when it was up and before it was ended.
    live: [usize; 2],
    /// Seconds that putting it up took, and ending it.
    start_s: f64,
    stop_s: f64,
    /// Memory of the system that was available before and no longer when it was up, per thread, in KiB.
    kib_per_thread: f64,
    kinds: Progress,
}

fn main() -> Result<()> {
    run_if_worker();
    let args = Args::parse();
    if args.raise_limits {
        raise_limits(args.threads)?;
    }
    let spec = spec(&args);
    let before = available_kib();
    let begun = Instant::now();
    let mut said = begun;
    let load = Load::start_with(spec, |up| {
        if !args.json && said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            eprintln!("{up} of {} threads up", args.threads);
        }
    })?;
    let start_s = begun.elapsed().as_secs_f64();
    let kib_per_thread = (before - available_kib()) / args.threads as f64;
    let up = load.live()?;
    if !args.json {
        println!("{up} threads live after {start_s:.2} s, {kib_per_thread:.1} KiB each");
    }
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let kinds = load.progress();
    let live = [up, load.live()?];
    let ending = Instant::now();
    load.stop()?;
    let stop_s = ending.elapsed().as_secs_f64();
    let report = Report { threads: args.threads, live, start_s, stop_s, kib_per_thread, kinds };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("{:>8} {:>8} {:>12} {:>12} {:>14}", "kind", "threads", "ops", "least", "overdue_us");
    for kind in &report.kinds.kinds {
        let name = format!("{:?}", kind.kind).to_lowercase();
        let overdue = kind.overdue_ns / 1_000;
        println!("{name:>8} {:>8} {:>12} {:>12} {overdue:>14}", kind.threads, kind.ops, kind.least);
    }
    println!("all gone after {stop_s:.2} s");
    Ok(())
}

fn spec(args: &Args) -> LoadSpec {
    let mut spec = LoadSpec { seed: args.seed, ..LoadSpec::mixed(args.threads) };
    spec.wakes_per_s = args.wakes_per_s.unwrap_or(spec.wakes_per_s);
    spec.cpu_bound = args.cpu_bound.unwrap_or(spec.cpu_bound);
    spec.cpu_nice = args.cpu_nice.unwrap_or(spec.cpu_nice);
    spec.processes = args.processes.unwrap_or(spec.processes);
    if args.cpu_forever {
        spec.cpu_rest = Duration::ZERO;
    }
    spec
}

/// Memory available on the system, in KiB; 0 where the kernel does not say.
fn available_kib() -> f64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        })
        .unwrap_or(0.0)
}

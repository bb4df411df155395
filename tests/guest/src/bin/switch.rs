//! `switch`: goes from one scheduler to another under load, as scx_loader does it and with `scx-upgrade swap`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use guest::load::run_if_worker;
use guest::switch;

/// Switch between two published schedulers, and swap two policies, under the same load
///
/// Needs root, a kernel with sched_ext, and scx-upgrade and the policies in PATH or beside it.
#[derive(Debug, Parser)]
struct Args {
    /// Live threads in all
    #[arg(long, default_value_t = 1_000)]
    threads: usize,
    /// Length of each window of measurement
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    window: f64,
    /// The published scheduler that is running
    #[arg(long, value_name = "PROGRAM", default_value = "/bin/scx_cosmos")]
    old: PathBuf,
    /// The published scheduler to switch to
    #[arg(long, value_name = "PROGRAM", default_value = "/bin/scx_flash")]
    new: PathBuf,
    /// The policy that is running
    #[arg(long, value_name = "NAME", default_value = "scx_mini")]
    old_policy: String,
    /// The policy to swap it for
    #[arg(long, value_name = "NAME", default_value = "scx_lat")]
    new_policy: String,
    /// Provide what the published schedulers ask of the kernel's configuration in /boot: for the lab
    #[arg(long)]
    provide_config: bool,
    /// Write the report (JSON) to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> Result<()> {
    run_if_worker();
    let args = Args::parse();
    if args.provide_config {
        switch::published::provide_config()?;
    }
    let report = switch::run(&switch::Options {
        threads: args.threads,
        window: Duration::try_from_secs_f64(args.window).context("--window")?,
        published: [args.old, args.new],
        policies: [args.old_policy, args.new_policy],
    })?;
    let json = serde_json::to_string_pretty(&report)?;
    match &args.report {
        Some(file) => std::fs::write(file, &json).with_context(|| format!("writing {}", file.display()))?,
        None => println!("{json}"),
    }
    Ok(())
}

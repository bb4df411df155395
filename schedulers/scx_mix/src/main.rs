//! scx_mix: options and statistics.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use clap::error::ErrorKind;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(mix);

/// Latency-critical cgroups over best-effort ones on the same CPUs
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// A cgroup whose tasks are latency-critical, with those in it: its folder. Up to 16; the rest is best-effort
    #[arg(long = "critical", value_name = "FOLDER")]
    critical: Vec<PathBuf>,

    /// What best-effort tasks get of each CPU at least while they want it, per cent
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=50))]
    floor: u64,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    slice_us: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut config =
        mix::Config { floor_pct: options.floor, slice_ns: options.slice_us * 1000, ..mix::Config::default() };
    if options.critical.len() > config.critical_ids.len() {
        let text = format!("--critical can be given {} times at most", config.critical_ids.len());
        Options::command().error(ErrorKind::TooManyValues, text).exit();
    }
    for (id, folder) in config.critical_ids.iter_mut().zip(&options.critical) {
        // A cgroup's id is the inode number of its folder.
        *id = match std::fs::metadata(folder) {
            Ok(found) => found.ino(),
            Err(error) => {
                let text = format!("--critical {}: {error}", folder.display());
                Options::command().error(ErrorKind::ValueValidation, text).exit();
            }
        };
    }
    mix::policy(&config).run(&options.run, |running| match running.stats::<mix::Stats>() {
        Ok(s) => println!(
            "critical {} best-effort {} preempted {} by the floor {}",
            s.nr_critical, s.nr_best_effort, s.nr_preempted, s.nr_floor
        ),
        Err(error) => eprintln!("{error}"),
    })
}

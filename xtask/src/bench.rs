//! `cargo xtask bench`: every figure of the README, measured anew, as JSON, as tables and as plots.
//!
//! - [`parts`] boots the lab for each part and gathers what it says in a [`Bench`],
//! - [`published`] builds the schedulers that it is compared with,
//! - [`table`] and [`plot`] show it, [`pages`] puts it into the README and the book.

mod pages;
mod parts;
mod plot;
mod published;
mod result;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo;
use result::Bench;

/// The measurements, in the folder of results and in the book.
const RESULT: &str = "bench.json";

/// Threads of the load, unless others are asked for.
const THREADS: [u32; 3] = [1_000, 10_000, 40_000];
/// Seconds that a window lasts: at a sample each millisecond, 20 of 20,000 are above p99.9.
const WINDOW: u32 = 20;
/// How often swap, rollback, and detach and attach are measured, in turn.
const ROUNDS: u32 = 3;
/// Emulated CPUs.
const CPUS: u32 = 2;

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// Numbers of threads in the load, each for a run of its own. The part with published schedulers takes the least and
    /// the largest.
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = THREADS,
        value_name = "N,...",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    threads: Vec<u32>,
    /// The kernel to boot: a version such as 7.3.4, the start of one such as 7.0, or the path of an image.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Option<String>,
    /// Memory of the guest, as QEMU writes it. 40,000 threads take 8 GiB or more.
    #[arg(long, default_value = "10G", value_name = "SIZE")]
    memory: String,
    /// Number of emulated CPUs. Instructions are counted on one.
    #[arg(long, default_value_t = CPUS)]
    cpus: u32,
    /// Seconds that each window of measurement lasts.
    #[arg(long, default_value_t = WINDOW, value_name = "SECONDS")]
    window: u32,
    /// How often swap, rollback, and detach and attach are measured, in turn: the tables show medians.
    #[arg(long, default_value_t = ROUNDS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds after which a guest is killed.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
    /// Measure this part only. May be given several times.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Write the results to this folder.
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    out: PathBuf,
    /// Measure nothing: take the figures of an earlier run from its bench.json.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "threads", "kernel", "memory", "cpus", "window", "rounds"])]
    from: Option<PathBuf>,
    /// Write tables and plots into the README and the book as well.
    #[arg(long, conflicts_with = "only")]
    readme: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Commit, sweep, whole swap and rollback, beside detach and attach.
    Threads,
    /// Instructions per context switch.
    Instructions,
    /// Wake-up delays around a swap by a clock that counts instructions.
    Delays,
    /// A switch between two published schedulers, beside a swap.
    Published,
}

/// Runs the verb. It fails when a swap was not as it must be, whatever the figures are.
///
/// # Errors
/// When the lab fails, or the results cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    let begun = Instant::now();
    let bench = match &options.from {
        Some(file) => result::read(file)?,
        None => parts::measure(options)?,
    };
    write(&bench, &options.out)?;
    if options.readme {
        // Counted delays are not asked for: results of an earlier version lack them.
        if bench.by_threads.is_empty() || bench.instructions.is_none() || bench.published.is_empty() {
            bail!("these are not all parts: the README's table has all of them");
        }
        pages::write(&bench, cargo::root())?;
    }
    println!("\n{}", table::render(&bench));
    eprintln!(
        "bench: done in {:.0} s; the results are in {}",
        begun.elapsed().as_secs_f64(),
        options.out.display()
    );
    let failures = bench.failures();
    failures.iter().for_each(|failure| eprintln!("bench: FAILED: {failure}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder of results.
fn write(bench: &Bench, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    result::write(bench, &folder.join(RESULT))?;
    let put = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    put("bench.md", &table::render(bench))?;
    for plot in plot::all(bench)? {
        put(plot.name, &plot.svg)?;
    }
    Ok(())
}

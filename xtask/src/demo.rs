//! `cargo xtask demo`: hot upgrades under load in the lab, with a report.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use lab::{cache, kernel, vm::Job};

use crate::{
    build, cargo,
    lab_run::{self, Machine},
    setup,
    stage::stage,
};

/// Where the demo leaves its report in the guest.
const REPORT: &str = "report.json";
/// And its picture.
const PICTURE: &str = "picture.svg";

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// Number of threads in the load.
    #[arg(long, default_value_t = 40_000, value_name = "N")]
    threads: u32,
    /// How often swap, rollback, and detach and attach are measured, in turn: the table shows medians.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The kernel to boot: a version such as 7.3.4, the start of one such as 7.0, or the path of an image.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Option<String>,
    /// Write the report (JSON) to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where to put the picture (SVG) of the delays around a swap; target/demo.svg if not given.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Memory of the guest, as QEMU writes it. 40,000 threads take 8 GiB or more.
    #[arg(long, default_value = "10G", value_name = "SIZE")]
    memory: String,
    /// Number of emulated CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds after which the guest is killed.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the verb. The exit status is the demo's.
///
/// # Errors
/// When the lab fails or there is no report to copy.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages(true)?;
    let kernel = stage("kernel", || kernel::obtain(&cache::folder()?, options.kernel.as_deref()))?;
    let programs = build::all()?;
    let threads = options.threads.to_string();
    let inside = format!("/out/{REPORT}");
    let drawn = format!("/out/{PICTURE}");
    let rounds = options.rounds.to_string();
    let arguments = ["--threads", &threads, "--rounds", &rounds, "--report", &inside, "--picture", &drawn];
    let mut job = Job::program(programs.path("demo")?, arguments)?;
    for other in programs.paths() {
        job.bring(other)?;
    }
    let machine =
        Machine { cpus: options.cpus, smt: 1, memory: options.memory.clone(), timeout: options.timeout };
    let vm = lab_run::machine(kernel, programs.init()?, &machine);
    let outcome = stage("demo", || Ok(lab_run::boot(&vm, &job, lab_run::Shown::AsItIs, |_| ())?))?;
    if let Some(to) = &options.report {
        lab_run::copy_file(&outcome.files.join(REPORT), to).context("the demo left no report")?;
        eprintln!("demo: the report is at {}", to.display());
    }
    let picture = options.picture.clone().unwrap_or_else(|| cargo::root().join("target/demo.svg"));
    match lab_run::copy_file(&outcome.files.join(PICTURE), &picture) {
        Ok(()) => eprintln!("demo: the picture is at {}", picture.display()),
        // Why the demo failed matters more.
        Err(_) if outcome.status != 0 => {}
        Err(e) => return Err(e.context("the demo left no picture")),
    }
    Ok(ExitCode::from(u8::try_from(outcome.status).unwrap_or(1)))
}

//! `cargo xtask transcripts`: runs the commands of the book's transcripts in the lab and writes what they print into the
//! book. The suite of the same name compares the two in every test run.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use lab::{cache, kernel};

use crate::{
    build, cargo,
    lab_run::{self, Machine},
    setup,
    stage::stage,
    test,
};

/// The suite, of the crate `e2e`.
const SUITE: &str = "transcripts";
/// Where the transcripts are, from the workspace's folder.
const FOLDER: &str = "docs/transcripts";

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// The kernel to boot: a version such as 7.3.4, the start of one such as 7.0, or the path of an image.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: Machine,
    /// Write only those whose tests' names contain this.
    filter: Option<String>,
}

/// Runs the verb. The blocks of the book's pages are brought up to date as well.
///
/// # Errors
/// When the lab fails, or a command cannot be run.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages(true)?;
    let kernel = stage("kernel", || kernel::obtain(&cache::folder()?, options.kernel.as_deref()))?;
    let programs = build::all()?;
    let mut suites = test::suites()?;
    suites.retain(|suite| suite.name == SUITE);
    let mut job =
        test::job(&programs, &suites.iter().collect::<Vec<_>>(), options.filter.as_deref().as_slice())?;
    job.env.push(("SCX_UPGRADE_TRANSCRIPTS".to_owned(), "/out".to_owned()));
    job.collect = true;
    let vm = lab_run::machine(kernel, programs.init()?, &options.machine);
    let outcome = stage(SUITE, || Ok(lab_run::boot(&vm, &job, lab_run::Shown::AsItIs, |_| ())?))?;
    if outcome.status != 0 {
        bail!("the suite failed, the transcripts are as they were");
    }
    let to = cargo::root().join(FOLDER);
    for entry in std::fs::read_dir(&outcome.files).context("the suite left nothing")? {
        let entry = entry.context("the suite left nothing")?;
        lab_run::copy_file(&entry.path(), &to.join(entry.file_name()))?;
    }
    cargo::run(
        &["test", "--package", "book", "--test", "code", "blocks_are"],
        &[("SCX_UPGRADE_WRITE_BOOK", "1")],
    )?;
    Ok(ExitCode::SUCCESS)
}

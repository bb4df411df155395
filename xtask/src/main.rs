//! `cargo xtask VERB`: set-up, builds, the lab, tests, the demo and the bench. Pure Rust, so that it builds on a fresh machine.

mod artifacts;
mod bench;
mod build;
mod cargo;
mod demo;
mod lab_run;
mod package;
mod setup;
mod stage;
mod tally;
mod test;
mod times;
mod tools;
mod transcripts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that a developer of this project does, by one command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the Debian packages that are missing, and get a kernel for the lab.
    Setup(setup::Options),
    /// Build everything that runs in the lab, into target/release.
    Build,
    /// Run a program of this machine as root inside the lab.
    Lab(lab_run::Options),
    /// Run every test: style, host, documentation, and the end-to-end suites on each kernel.
    Test(test::Options),
    /// Show hot upgrades under load, with figures.
    Demo(demo::Options),
    /// Measure every figure of the README, as tables and plots.
    Bench(bench::Options),
    /// Make the Debian package.
    Package(package::Options),
    /// Run the commands of the book's transcripts in the lab, and write what they print into the book.
    Transcripts(transcripts::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Verb::Build => build::all().map(|_| ExitCode::SUCCESS),
        Verb::Lab(options) => lab_run::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Package(options) => package::run(&options).map(|()| ExitCode::SUCCESS),
        Verb::Transcripts(options) => transcripts::run(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

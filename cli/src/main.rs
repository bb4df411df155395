//! scx-upgrade: replace the running sched_ext scheduler in place, and take it back.

mod args;
mod failure;
mod launch;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    match verbs::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(args.json),
    }
}

//! scx-upgrade: replace the running sched_ext scheduler in place, and take it back.

mod args;
mod binary;
mod clock;
mod failure;
mod frontend;
mod interrupt;
mod launch;
mod log;
mod output;
mod picture;
mod print;
mod probation;
mod supervise;
mod trust;
mod verbs;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return failure::usage(&e),
    };
    log::start(args.quiet, args.verbose);
    match verbs::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(e.report(args.json) as u8),
    }
}

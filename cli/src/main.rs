//! scx-upgrade: replace the running sched_ext scheduler in place, and take it back.

mod args;
mod attend;
mod binary;
mod clock;
mod failure;
mod launch;
mod log;
mod output;
mod picture;
mod probation;
mod supervise;
mod trust;
mod unit;
mod verbs;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::args::Verb;

fn main() -> ExitCode {
    let args = Args::parse();
    log::start(args.quiet, args.verbose);
    if is_a_look(&args.verb) {
        // Like any tool behind a `| head`.
        // SAFETY: no memory is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    match verbs::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(args.json),
    }
}

/// Does the verb leave all as it is, so that it may end wherever it is?
fn is_a_look(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::Run(_)
            | Verb::Swap(_)
            | Verb::Rollback(_)
            | Verb::Snapshot(_)
            | Verb::Recover(_)
            | Verb::Stop(_)
            | Verb::Doctor
    )
}

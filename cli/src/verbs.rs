//! The verbs, a file each.

mod check;
mod completions;
mod doctor;
mod dry_run;
mod history;
mod info;
mod list;
mod man;
mod plan;
mod recover;
mod rollback;
mod run;
mod snapshot;
mod status;
mod stop;
mod swap;
mod take_over;

use std::io;

use anyhow::Context as _;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::requirements;
use scx_upgrade_engine::kernel::namespaces;
use scx_upgrade_engine::transition::effect;

use crate::args::Args;
use crate::args::SnapshotVerb;
use crate::args::Verb;
use crate::failure::Failure;
use crate::output::Output;

/// Do what the command line says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let out = Output { json: args.json, quiet: args.quiet };
    match &args.verb {
        // These need neither root nor a kernel with sched_ext.
        Verb::Check { old, new } => check::check(old, new, out),
        Verb::Info { binary } => info::info(binary, out),
        Verb::Snapshot(SnapshotVerb::Show { file }) => snapshot::show(file, out),
        Verb::Doctor => doctor::doctor(out),
        Verb::Completions { shell } => completions::completions(*shell, out),
        Verb::Man { verb } => man::man(verb.as_deref(), out),
        // This one shows what is left where they are missing.
        Verb::History(history) => history::history(history, out),
        Verb::TakeOver(take_over) if take_over.direct => take_over::direct(take_over),
        _ => on_the_host(args, out),
    }
}

fn on_the_host(args: &Args, out: Output) -> Result<(), Failure> {
    requirements::check()?;
    let changes = args.verb.changes();
    if changes {
        namespaces::check_namespaces()?;
        hold_stops_back()?;
    }
    let pins = Pins::open()?;
    // A supervisor decides by itself when it ends so: its service is not started again then.
    let watches = matches!(&args.verb, Verb::Recover(recover) if recover.watch);
    let ran = changes && !watches && effect::is_enabled();
    agreed(&pins, ran, on_these_pins(args, pins.clone(), out))
}

/// Ctrl-Z and Ctrl-\ wait until the command ends: stopped between a detach and an attach it would leave tasks without their
/// scheduler, and everybody else without the lock. Before there is any other thread.
fn hold_stops_back() -> Result<(), Failure> {
    let held = SigSet::from_iter([Signal::SIGTSTP, Signal::SIGQUIT]);
    Ok(held.thread_block().map_err(io::Error::from).context("cannot hold signals back")?)
}

/// The failure of a command that says what the kernel runs. `ran`: was a scheduler enabled before?
fn agreed(pins: &Pins, ran: bool, result: Result<(), Failure>) -> Result<(), Failure> {
    let default = Exit::DefaultScheduler.code();
    match result {
        Err(failure) if ran && failure.exit_code != default && !effect::is_enabled() => {
            let why = Host::running(pins).err().map_or_else(String::new, |e| format!(" ({e})"));
            let message = format!(
                "{}\nand no scheduler is enabled by now{why}: tasks are on the default scheduler",
                failure.message
            );
            Err(Failure { exit_code: default, message, ..failure })
        }
        other => other,
    }
}

fn on_these_pins(args: &Args, pins: Pins, out: Output) -> Result<(), Failure> {
    match &args.verb {
        Verb::Run(run) => run::run(&pins, run, out),
        Verb::Swap(swap) => swap::swap(&pins, swap, out),
        Verb::TakeOver(take_over) => take_over::take_over(&pins, take_over, out),
        Verb::Rollback(rollback) => rollback::rollback(pins, rollback, out),
        Verb::Recover(recover) => recover::recover(pins, recover, out),
        Verb::Stop(stop) => stop::stop(pins, stop, out),
        Verb::Plan { binary } => plan::plan(&pins, binary, out),
        Verb::Status(status) => status::status(&pins, status, out),
        Verb::List => list::list(&pins, out),
        Verb::Snapshot(SnapshotVerb::Save { file, no_tasks }) => snapshot::save(&pins, file, !no_tasks, out),
        Verb::Snapshot(SnapshotVerb::Restore { file }) => snapshot::restore(&pins, file, out),
        // Answered by the caller.
        _ => Ok(()),
    }
}

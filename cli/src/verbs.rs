//! The verbs, a file each.

mod plan;
mod rollback;
mod run;
mod snapshot;
mod status;
mod stop;
mod swap;

use scx_upgrade_sdk::kernel;
use scx_upgrade_sdk::pins::Pins;

use crate::args::Args;
use crate::args::SnapshotVerb;
use crate::args::Verb;
use crate::failure::Failure;

/// Do what the command line says.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Verb::Check { old, new } = &args.verb {
        return plan::check(old, new, args.json);
    }
    if let Verb::Snapshot(SnapshotVerb::Show { file }) = &args.verb {
        return snapshot::show(file, args.json);
    }
    kernel::check()?;
    let pins = Pins::open()?;
    match &args.verb {
        Verb::Run(run) => run::run(&pins, run, args.json),
        Verb::Swap(swap) => swap::swap(&pins, swap, args.json),
        Verb::Plan { binary } => plan::plan(&pins, binary, args.json),
        Verb::Snapshot(SnapshotVerb::Save { file, no_tasks }) => {
            snapshot::save(&pins, file, !no_tasks, args.json)
        }
        Verb::Snapshot(SnapshotVerb::Restore { file }) => snapshot::restore(&pins, file, args.json),
        // Answered above: they need neither root nor a kernel with sched_ext.
        Verb::Check { .. } | Verb::Snapshot(SnapshotVerb::Show { .. }) => Ok(()),
        Verb::Rollback { reattach } => rollback::rollback(&pins, reattach.allow_reattach, args.json),
        Verb::Status => status::status(&pins, args.json),
        Verb::Stop => stop::stop(&pins, args.json),
    }
}

//! The verbs, a file each.

mod plan;
mod rollback;
mod run;
mod status;
mod stop;
mod swap;

use scx_upgrade_sdk::kernel;
use scx_upgrade_sdk::pins::Pins;

use crate::args::Args;
use crate::args::Verb;
use crate::failure::Failure;

/// Do what the command line says.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Verb::Check { old, new } = &args.verb {
        return plan::check(old, new, args.json);
    }
    kernel::check()?;
    let pins = Pins::open()?;
    match &args.verb {
        Verb::Run(policy) => run::run(&pins, policy, args.json),
        Verb::Swap(swap) => swap::swap(&pins, swap, args.json),
        Verb::Plan { binary } => plan::plan(&pins, binary, args.json),
        // Answered above: it needs neither root nor a kernel with sched_ext.
        Verb::Check { .. } => Ok(()),
        Verb::Rollback { reattach } => rollback::rollback(&pins, reattach.allow_reattach, args.json),
        Verb::Status => status::status(&pins, args.json),
        Verb::Stop => stop::stop(&pins, args.json),
    }
}

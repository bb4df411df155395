//! The verbs, a file each.

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
    kernel::check()?;
    let pins = Pins::open()?;
    match &args.verb {
        Verb::Run(policy) => run::run(&pins, policy, args.json),
        Verb::Swap(policy) => swap::swap(&pins, policy, args.json),
        Verb::Rollback => rollback::rollback(&pins, args.json),
        Verb::Status => status::status(&pins, args.json),
        Verb::Stop => stop::stop(&pins, args.json),
    }
}

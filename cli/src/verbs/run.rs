//! `scx-upgrade run`: start a policy where none is running.

use scx_upgrade_engine::Error;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::options::ExpectedAction;
use scx_upgrade_engine::transition::options::SwapOptions;

use crate::args::RunArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Interruption;
use crate::launch::Place;
use crate::output::Output;
use crate::verbs::dry_run;
use crate::verbs::swap;

pub fn run(pins: &Pins, args: &RunArgs, out: Output) -> Result<(), Failure> {
    let binary = PolicyBinary::open(&args.policy.binary)?;
    match Host::running(pins) {
        Err(Error::NothingRunning | Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {
        }
        Ok(host) => {
            // With a snapshot more is wanted than that it runs, and that cannot be had.
            if args.restore.is_none() {
                swap::refuse_the_same(&host, &binary, &args.policy)?;
            }
            return Err(Error::Running.into());
        }
        Err(Error::OtherScheduler { .. }) if args.replace => {}
        Err(other) => return Err(other.into()),
    }
    if args.change.dry_run {
        return dry_run::run(pins, args, &binary, out);
    }
    let options = SwapOptions {
        restore: args.restore.as_deref(),
        replace: args.replace,
        minimal_ops: args.minimal_ops,
        no_carry: args.policy.no_carry,
        only: Some(ExpectedAction::Run),
        ..SwapOptions::default()
    };
    let pins = pins.clone().patient(args.change.patience());
    let how = (Place::unless(args.policy.no_unit), Interruption::Ends);
    let launched = launch::launch(&pins, &binary, &args.policy.args, how, options, out)?;
    effect::confirm(&pins, &launched.report)?;
    out.report(&launched.report);
    Ok(())
}

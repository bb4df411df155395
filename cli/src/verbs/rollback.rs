//! `scx-upgrade rollback`: make the policy before it run again, or one before that.

use scx_upgrade_sdk::effect;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::take_over;

use crate::args::RollbackArgs;
use crate::attend;
use crate::failure::Failure;
use crate::output::Output;
use crate::verbs::dry_run;

pub fn rollback(pins: Pins, args: &RollbackArgs, out: Output) -> Result<(), Failure> {
    if args.change.dry_run {
        return dry_run::rollback(&pins, args, out);
    }
    let pins = pins.patient(args.change.patience());
    let done = take_over::rollback(&pins, args.aim(), args.reattach.allow_reattach)?;
    attend::after(&pins, done.generation, args.change.timeout);
    effect::confirm(&pins, &done)?;
    out.report(&done);
    Ok(())
}

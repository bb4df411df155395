//! `scx-upgrade rollback`: make the policy before it run again, or one before that.

use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::take_over;

use crate::args::RollbackArgs;
use crate::failure::Failure;
use crate::frontend;
use crate::output::Output;
use crate::verbs::dry_run;

pub fn rollback(pins: Pins, args: &RollbackArgs, out: Output) -> Result<(), Failure> {
    if args.change.dry_run {
        return dry_run::rollback(&pins, args, out);
    }
    let pins = pins.patient(args.change.patience());
    let done = take_over::rollback(&pins, args.aim(), args.reattach.allow_reattach)?;
    frontend::after(&pins, done.generation);
    effect::confirm(&pins, &done)?;
    out.report(&done);
    Ok(())
}

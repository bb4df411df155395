//! `scx-upgrade stop`: end the scheduler.

use std::fmt::Write as _;

use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::stop;

use crate::args::StopArgs;
use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;
use crate::verbs::dry_run;

pub fn stop(pins: Pins, args: &StopArgs, out: Output) -> Result<(), Failure> {
    if args.change.dry_run {
        return dry_run::stop(&pins, out);
    }
    let stopped = stop::stop(&pins.patient(args.change.patience()))?;
    out.show(&stopped, |out| {
        match &stopped.policy {
            Some(policy) => line!(out, "{policy} stopped in {}", output::duration(stopped.detach_ns)),
            None => line!(out, "removed what an earlier host left"),
        }
        match &stopped.runs {
            Some(other) => line!(out, "the kernel runs another scheduler now, {other}"),
            None => line!(out, "tasks are on the kernel's default scheduler"),
        }
    });
    out.warn(&stopped.warnings);
    Ok(())
}

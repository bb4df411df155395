//! `scx-upgrade run`: start a policy where none is running.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::effect;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::run::LEAN;
use scx_upgrade_sdk::run::NO_CARRY;
use scx_upgrade_sdk::run::REPLACE;
use scx_upgrade_sdk::run::RESTORE;

use crate::args::RunArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Purpose;
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
    // Where it is given from, not where the policy's process looks.
    let file = args.restore.as_ref().map(|file| std::path::absolute(file).unwrap_or(file.clone()));
    let file = file.map(|file| file.to_string_lossy().into_owned());
    let mut own: Vec<&str> = file.iter().flat_map(|file| [RESTORE, file]).collect();
    own.extend(args.replace.then_some(REPLACE));
    own.extend(args.lean.then_some(LEAN));
    own.extend(args.policy.no_carry.then_some(NO_CARRY));
    let purpose =
        Purpose { own: &own, only: "run", timeout: args.change.timeout, unit: !args.policy.no_unit };
    let launched = launch::launch(&binary, &args.policy.args, purpose)?;
    effect::confirm(pins, &launched.report)?;
    out.report(&launched.report);
    Ok(())
}

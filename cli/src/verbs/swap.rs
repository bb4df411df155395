//! `scx-upgrade swap`: replace the running policy, in place, or by a reattach where that is needed and allowed.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::identity::Binary;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::run::ALLOW_REATTACH;
use scx_upgrade_sdk::run::NO_CARRY;

use crate::args::PolicyArgs;
use crate::args::SwapArgs;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Purpose;
use crate::output::Output;
use crate::probation::Probation;
use crate::verbs::dry_run;

pub fn swap(pins: &Pins, args: &SwapArgs, out: Output) -> Result<(), Failure> {
    let allowed = args.reattach.allow_reattach;
    match Host::running(pins) {
        Ok(host) if !args.again && !args.policy.no_carry => refuse_the_same(&host, &args.policy)?,
        Ok(_) | Err(Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {}
        Err(Error::OtherHost { .. }) if allowed => {}
        // Without one, taking over would mean starting a host, which is what `run` is for.
        Err(other) => return Err(other.into()),
    }
    if args.change.dry_run {
        return dry_run::swap(pins, args, out);
    }
    let mut own = Vec::new();
    own.extend(allowed.then_some(ALLOW_REATTACH));
    own.extend(args.policy.no_carry.then_some(NO_CARRY));
    let purpose = Purpose { own: &own, only: "swap", timeout: args.change.timeout };
    let probation = Probation::prepare(pins, &args.probation)?;
    let done = launch::launch(&args.policy, purpose)?;
    match probation {
        Some(probation) => probation.pass(pins, &done, allowed, out),
        None => {
            out.report(&done);
            Ok(())
        }
    }
}

/// Refuse what runs already: the same bytes, started with the same arguments. Not where an earlier command was cut off:
/// then there is something to do.
pub fn refuse_the_same(host: &Host, wanted: &PolicyArgs) -> Result<(), Failure> {
    if host.registry.pending.is_some() {
        return Ok(());
    }
    let active = host.data.active();
    let Some(runs) = host.registry.slot(active.slot) else { return Ok(()) };
    // The arguments first: a hash takes longer.
    let same = runs.own_args() == wanted.args
        && runs.binary.is_some()
        && Binary::of(&wanted.binary).map(|b| b.sha256) == runs.binary.as_ref().map(|b| b.sha256.clone());
    match same {
        false => Ok(()),
        true => Err(Error::AlreadyRunning {
            policy: format!("{} {}", runs.policy, runs.version),
            generation: active.generation,
        }
        .into()),
    }
}

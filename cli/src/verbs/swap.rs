//! `scx-upgrade swap`: replace the running policy, in place, or by a reattach where that is needed and allowed.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::effect;
use scx_upgrade_sdk::exit::Exit;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::run::ALLOW_REATTACH;
use scx_upgrade_sdk::run::NO_CARRY;
use scx_upgrade_sdk::run::policy_args;

use crate::args::PolicyArgs;
use crate::args::SwapArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Launched;
use crate::launch::Purpose;
use crate::output;
use crate::output::Output;
use crate::picture::Picture;
use crate::picture::Sheet;
use crate::probation::Probation;
use crate::verbs::dry_run;

pub fn swap(pins: &Pins, args: &SwapArgs, out: Output) -> Result<(), Failure> {
    let allowed = args.reattach.allow_reattach;
    let binary = PolicyBinary::open(&args.policy.binary)?;
    match Host::running(pins) {
        Ok(host) if !args.again && !args.policy.no_carry => refuse_the_same(&host, &binary, &args.policy)?,
        Ok(_) | Err(Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {}
        Err(Error::OtherHost { .. }) if allowed => {}
        // Without one, taking over would mean starting a host, which is what `run` is for.
        Err(other) => return Err(other.into()),
    }
    // What cannot be written is refused before anything is done.
    let sheet = args.picture.as_deref().map(Sheet::at).transpose()?;
    if args.change.dry_run {
        return dry_run::swap(pins, args, &binary, out);
    }
    let mut own = Vec::new();
    own.extend(allowed.then_some(ALLOW_REATTACH));
    own.extend(args.policy.no_carry.then_some(NO_CARRY));
    let purpose =
        Purpose { own: &own, only: "swap", timeout: args.change.timeout, unit: !args.policy.no_unit };
    let mut picture = sheet.map(|sheet| Picture::begin(pins, sheet)).transpose()?;
    let probation = Probation::prepare(pins, &args.probation)?;
    picture.iter_mut().for_each(Picture::baseline);
    let Launched { report: done, interrupted } = launch::launch(&binary, &args.policy.args, purpose)?;
    picture.iter().for_each(Picture::swapped);
    effect::confirm(pins, &done)?;
    let ended = match (probation, interrupted) {
        (Some(_), Some(signal)) => {
            let message = format!(
                "{} runs as generation {}, and {signal} came after its commit: its probation is not watched",
                done.to, done.generation
            );
            let failure = Failure::new(Exit::AfterCommit, message);
            Err(out.show_failed(&done, |text| output::report(text, &done), failure))
        }
        (Some(probation), None) => probation.pass(pins, &done, allowed, out),
        (None, _) => {
            out.report(&done);
            Ok(())
        }
    };
    // The swap is done, however its picture comes out.
    if let Some(Err(e)) = picture.map(|picture| picture.finish(&done)) {
        out.warn(&[format!("{e:#}")]);
    }
    ended
}

/// Refuse what runs already: the same bytes, started with the same arguments. Not where an earlier command was cut off:
/// then there is something to do.
pub fn refuse_the_same(host: &Host, binary: &PolicyBinary, wanted: &PolicyArgs) -> Result<(), Failure> {
    if host.registry.pending.is_some() {
        return Ok(());
    }
    let active = host.data.active();
    let Some(runs) = host.registry.slot(active.slot) else { return Ok(()) };
    let scheduling = |args: &[String]| policy_args(args, false);
    let same = scheduling(runs.args.get(1..).unwrap_or_default()) == scheduling(&wanted.args)
        && runs.binary.as_ref().is_some_and(|runs| runs.sha256 == binary.identity().sha256);
    match same {
        false => Ok(()),
        true => Err(Error::AlreadyRunning { policy: runs.title(), generation: active.generation }.into()),
    }
}

//! `scx-upgrade swap`: replace the running policy, in place, or by a reattach where that is needed and allowed.

use scx_upgrade_engine::Error;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::options::ExpectedAction;
use scx_upgrade_engine::transition::options::SwapOptions;

use crate::args::PolicyArgs;
use crate::args::SwapArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Interruption;
use crate::launch::Launched;
use crate::launch::Place;
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
    let options = SwapOptions {
        may_reattach: allowed,
        no_carry: args.policy.no_carry,
        only: Some(ExpectedAction::Swap),
        ..SwapOptions::default()
    };
    let how = (Place::unless(args.policy.no_unit), Interruption::Ends);
    let mut picture = sheet.map(|sheet| Picture::begin(pins, sheet)).transpose()?;
    let probation = Probation::prepare(pins, &args.probation)?;
    picture.iter_mut().for_each(Picture::baseline);
    let patient = pins.clone().patient(args.change.patience());
    let Launched { report: done, interrupted, host, .. } =
        launch::launch(&patient, &binary, &args.policy.args, how, options, out)?;
    picture.iter().for_each(Picture::swapped);
    effect::confirm(pins, &done)?;
    // With it goes the real-time class that the commit took.
    drop(host);
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
    let same = scheduling(runs.own_args()) == scheduling(&wanted.args)
        && runs.binary.as_ref().is_some_and(|runs| runs.sha256 == binary.identity().sha256);
    match same {
        false => Ok(()),
        true => Err(Error::AlreadyRunning { policy: runs.title(), generation: active.generation }.into()),
    }
}

/// Options of every policy's binary that do not change how the policy schedules. Each takes a value.
const NOT_SCHEDULING: [&str; 2] = ["--stats", "--lock-timeout"];

/// The arguments without those.
fn scheduling(args: &[String]) -> Vec<&String> {
    let (mut kept, mut rest) = (Vec::new(), args.iter());
    while let Some(arg) = rest.next() {
        match arg.split_once('=').map_or(arg.as_str(), |(name, _)| name) {
            "--" => {
                kept.push(arg);
                kept.extend(rest.by_ref());
            }
            name if !NOT_SCHEDULING.contains(&name) => kept.push(arg),
            name if name == arg => drop(rest.next()),
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::scheduling;

    #[test]
    fn statistics_do_not_make_another_policy() {
        let of = |line: &str| {
            let args: Vec<_> = line.split(' ').map(str::to_owned).collect();
            scheduling(&args).into_iter().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("--stats 2 --slice-us 5 --stats=3 --lock-timeout=7"), "--slice-us 5");
        assert_eq!(of("--lock-timeout 7 --slice-us=5"), "--slice-us=5");
        assert_eq!(of("--slice-us 5 -- --stats 1"), "--slice-us 5 -- --stats 1");
        assert_eq!(of("--stats"), "");
    }
}

//! Where commands that change what runs come in: one at a time, after what a killed one left is brought in order, and with an
//! entry in the history.

use crate::transition::kernel::Kernel;
use crate::transition::options::ExpectedAction;
use crate::transition::options::SwapOptions;

use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::loaded::Loaded;
use crate::host::pins::Pins;
use crate::host::registry::RollbackTarget;
use crate::observe::history;
use crate::observe::history::Entry;
use crate::observe::history::Verb;
use crate::observe::report::Report;
use crate::os::identity::Binary;
use crate::os::realtime::Children;
use crate::os::realtime::RealtimeGuard;
use crate::transition::effect::Before;
use crate::transition::interrupt;
use crate::transition::method::PreloadedHost;
use crate::transition::reattach;
use crate::transition::recover;
use crate::transition::start;
use crate::transition::swap;

/// Put `policy` in charge: swap it in where a host runs, attach again where one was taken off, else start a host with it.
///
/// # Errors
/// Any [`Error`]; what ran before still runs, unless the error says otherwise.
pub fn take_over(pins: &Pins, policy: &Policy, options: SwapOptions<'_>) -> Result<(Host, Loaded, Report)> {
    let mut taken = locked_take_over(pins, policy, options, |host, report| {
        if let Some(waiting) = options.frontend
            && let Err(error) = waiting.begin(host, policy)
        {
            report.warnings.push(format!("the policy runs without a frontend: {error}"));
        }
    });
    match &mut taken {
        Ok((host, loaded, report)) => {
            report.warnings.append(&mut loaded.warnings);
            report.warnings.extend(host.found.take());
            report.warnings.extend(host.realtime.as_ref().and_then(RealtimeGuard::warning));
            note(host, report);
        }
        Err(error) => note_failure(options.only, policy.binary(), policy.args(), error),
    }
    taken
}

/// Enter into the history that the policy in this binary, with these arguments, was not put in charge.
pub fn note_failure(only: Option<ExpectedAction>, binary: Option<&Binary>, args: &[String], error: &Error) {
    let verb = match only {
        Some(ExpectedAction::Run) => Verb::Run,
        Some(ExpectedAction::Swap) => Verb::Swap,
        None => Verb::TakeOver,
    };
    // The command that started this process hears of the error, which matters more than the entry.
    let _ = history::note(Entry::failed(verb, error).of_policy(binary, args));
}

/// The same without an entry in the history; `then`: what is to be done under the lock once the policy runs.
pub(crate) fn locked_take_over<K: Kernel>(
    pins: &K,
    policy: &Policy,
    options: SwapOptions<'_>,
    then: impl FnOnce(&mut Host<K>, &mut Report),
) -> Result<(Host<K>, Loaded<K::Object>, Report)> {
    let _lock = pins.lock()?;
    let mut before = Before::look(pins);
    let taken = put_in_charge(pins, policy, options, &mut before);
    let (mut host, loaded, mut report) = before.compare(pins, taken)?;
    // The policy runs, whatever becomes of these.
    match pins.rescue() {
        Ok(tasks) => report.tasks_rescued = tasks,
        Err(error) => report.warnings.push(error.to_string()),
    }
    then(&mut host, &mut report);
    Ok((host, loaded, report))
}

fn put_in_charge<K: Kernel>(
    pins: &K,
    policy: &Policy,
    options: SwapOptions<'_>,
    before: &mut Before,
) -> Result<(Host<K>, Loaded<K::Object>, Report)> {
    // Before a reattach that was cut off is finished, which attaches a policy.
    if options.only == Some(ExpectedAction::Run) && Host::running(pins).is_ok() {
        return Err(Error::Running);
    }
    let mut host = match find(pins) {
        Err(Error::NothingRunning) if options.only == Some(ExpectedAction::Swap) => {
            return Err(Error::NothingRunning);
        }
        Err(Error::NothingRunning) => return start::start(pins, policy, options),
        Err(Error::OtherScheduler { .. }) if options.replace && !pins.has_state() => {
            return start::start(pins, policy, options);
        }
        Ok(_) | Err(Error::OtherHost { .. }) if options.restore.is_some() => return Err(Error::StateIsThere),
        Err(Error::OtherHost { .. }) if options.may_reattach => {
            return pins.replace_host(policy);
        }
        other => other?,
    };
    before.look_again(pins);
    let (loaded, report) = swap::swap(&mut host, policy, options)?;
    Ok((host, loaded, report))
}

/// Enter a commit into the history. What goes wrong there is a warning in the report.
fn note(host: &Host, report: &mut Report) {
    let generation = host.registry.generations.iter().rfind(|g| g.number == report.generation);
    let Some(generation) = generation else { return };
    let entry = Entry::commit(generation, host.registry.slot(report.slot), report);
    report.warnings.extend(history::note(entry));
}

/// The host with nothing pending, attached or, if the kernel took it off, not.
fn find<K: Kernel>(pins: &K) -> Result<Host<K>> {
    // What a killed command left is finished or undone first.
    let _change = interrupt::change()?;
    pins.finish_replacement()?;
    let mut host = match Host::running(pins) {
        Err(Error::Ejected { .. }) if pins.state() == "enabled" => {
            return Err(pins.unknown_scheduler());
        }
        Err(Error::Ejected { reason }) => {
            log::warn!("the host was taken off by the kernel ({reason}): attaching it again");
            Host::pinned(pins)?
        }
        Err(Error::Detached { .. }) => reattach::resume(pins)?,
        other => other?,
    };
    let cut_off = host.registry.pending.as_ref().map(|pending| pending.generation.number);
    recover::recover(&mut host)?;
    host.found = cut_off.map(|number| {
        let what = if host.data.active().generation == number { "finished" } else { "undone" };
        format!("an earlier command was cut off on its way to generation {number}: that was {what} first")
    });
    Ok(host)
}

/// Make the policy of an earlier generation active again: see `swap::rollback()`.
///
/// # Errors
/// Any [`Error`]; what ran before still runs, unless the error says otherwise.
pub fn rollback(pins: &Pins, aim: RollbackTarget, may_reattach: bool) -> Result<Report> {
    match locked_rollback(pins, aim, may_reattach) {
        Ok((host, mut report)) => {
            note(&host, &mut report);
            Ok(report)
        }
        Err(error) => {
            let _ = history::note(Entry::failed(Verb::Rollback, &error));
            Err(error)
        }
    }
}

pub(crate) fn locked_rollback<K: Kernel>(
    pins: &K,
    aim: RollbackTarget,
    may_reattach: bool,
) -> Result<(Host<K>, Report)> {
    // The policy that is to go may be one that forgets tasks, this one too.
    let realtime = pins.begin_realtime(Children::Too);
    let _lock = pins.lock()?;
    let mut before = Before::look(pins);
    let mut roll_back = || {
        let mut host = find(pins)?;
        before.look_again(pins);
        let mut report = swap::rollback(&mut host, aim, may_reattach)?;
        report.warnings.extend(realtime.warning());
        Ok((host, report))
    };
    let done = roll_back();
    before.compare(pins, done)
}

/// Bring back what the kernel took off, or what a killed command left detached: see `swap::recover()`. `None`: nothing was to
/// be brought back. What a killed command left in a host that runs is finished or undone either way.
///
/// # Errors
/// Any [`Error`]; tasks are on the default scheduler then, and what is pinned is kept for another attempt.
pub fn recover(pins: &Pins, aim: RollbackTarget, ready: Option<PreloadedHost>) -> Result<Option<Report>> {
    match locked_recover(pins, aim, ready) {
        Ok((host, Some(mut report))) => {
            note(&host, &mut report);
            Ok(Some(report))
        }
        Ok((_, None)) => Ok(None),
        Err(error) => {
            let _ = history::note(Entry::failed(Verb::Recover, &error));
            Err(error)
        }
    }
}

pub(crate) fn locked_recover<K: Kernel>(
    pins: &K,
    aim: RollbackTarget,
    ready: Option<PreloadedHost<K>>,
) -> Result<(Host<K>, Option<Report>)> {
    let realtime = pins.begin_realtime(Children::Too);
    let _lock = pins.lock()?;
    let mut before = Before::look(pins);
    let attach_again = || {
        let mut host = find(pins)?;
        before.look_again(pins);
        if host.attached {
            return Ok((host, None));
        }
        let mut report = swap::recover(&mut host, aim, ready)?;
        report.warnings.extend(realtime.warning());
        Ok((host, Some(report)))
    };
    let done = attach_again();
    before.compare(pins, done)
}

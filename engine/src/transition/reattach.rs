//! The reattach: what a swap does where it cannot be done in place, because the kernel reads something once, when a
//! scheduler is attached. The scheduler is detached and another attached, and state survives in the pinned maps.
//!
//! Steps 1 to 4 are those of the swap (`swap.rs`), while the old policy runs on, with one more in between:
//!
//! 1. **open**, 2. **plan**, 3. **load** the policy, and
//!    **load the host** again, on the terms that the policy asks for, over the same maps: its records, its shared memory
//!    and its program arrays, so that the policies in all slots are in the new host too;
//! 4. **prepare**: the policy's programs go into the idle slot, and `pending` says that this is a reattach;
//! 5. **detach**: the link goes, the kernel walks all tasks over to the default scheduler and destroys all queues. No op
//!    is in flight after it. Of a rollback by a conversion of the newer policy's own this is the hold: see `quiesce.rs`;
//! 6. **commit**: the same store as ever, while nothing runs;
//! 7. **attach** the new host. Its init makes the policy's queues, and the kernel's walk over all tasks brings up to date
//!    what it passes;
//! 8. the queues of the other loaded policies are made again, and the **sweep** does the rest.
//!
//! Every step is safe to die in. Up to 4 the old policy runs, and the next command undoes the preparation. From 5 on
//! nothing is attached, and the next command attaches: the old policy if the control word still names it, else the new
//! one. Where the new one cannot be attached, the old one is attached again.
//!
//! A host that the kernel took off is attached again in the same way, without step 5. One of another version of this
//! program is replaced: see `reattach/other_version.rs`.

pub(crate) mod other_version;

use crate::observe::report::Report;
use crate::transition::kernel::Kernel;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::names;
use crate::host::registry::Reattach;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::Swept;
use crate::kernel::messages::KernelLog;
use crate::transition::quiesce;
use crate::transition::recover;

/// How long the kernel may take to say `enabled` after attach. With 40,000 busy threads under emulation it took 1.5 s.
const ENABLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The kernel walks every task twice; busy ones by the ten thousand take it seconds.
const DETACH_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the steps took that only a reattach has, ns.
#[derive(Debug)]
pub(crate) struct Switched {
    /// From the removal of the link to the kernel's `disabled`; 0 if nothing was attached.
    pub detach_ns: u64,
    /// What was brought back while nothing was attached, where the plan calls conversions of the policy that ran.
    pub swept: Vec<Swept>,
    /// How long that took.
    pub sweep_ns: u64,
    /// The store.
    pub commit_ns: u64,
    /// From the call to the kernel's `enabled`.
    pub attach_ns: u64,
    /// From the removal of the link, or the call where there was none, to the kernel's `enabled`.
    pub gap_ns: u64,
}

impl Switched {
    /// Enters the steps that only a reattach has.
    pub(crate) fn report(self, report: &mut Report) {
        report.reattached = true;
        report.swept = self.swept;
        report.timings.sweep_ns = self.sweep_ns;
        report.timings.detach_ns = self.detach_ns;
        report.timings.commit_ns = self.commit_ns;
        report.timings.attach_ns = self.attach_ns;
        report.timings.gap_ns = self.gap_ns;
    }
}

/// Steps 5 to 7. `pending` is in the registry and the slot is filled; after it the new host runs, and the registry is to be
/// closed. `scopes`: those whose records the plan changes.
///
/// # Errors
/// [`Error::PutBack`] when the old one runs again, [`Error::NotPutBack`] when neither can be attached. The preparation
/// is undone then.
pub(crate) fn switch<K: Kernel>(
    host: &mut Host<K>,
    fresh: &mut K::Object,
    after: Active,
    scopes: &[&ScopeParts],
) -> Result<Switched> {
    let before = host.data.active();
    let old = if host.attached { Some(host.pins.attached()?) } else { None };

    let begin = Instant::now();
    if let Some(old) = &old {
        detach(&host.pins, old)?;
        host.attached = false;
    }
    let off = wait_until_off(&host.pins);
    let detach_ns = if old.is_some() { begin.elapsed().as_nanos() as u64 } else { 0 };

    let sweep = Instant::now();
    let theirs = host.registry.pending.clone().filter(|p| p.sweeper.is_some_and(|slot| slot != after.slot));
    let swept = match theirs {
        Some(pending) if off.is_ok() => quiesce::convert_back_detached(host, &pending, scopes),
        _ => Vec::new(),
    };
    let sweep_ns = if swept.is_empty() { 0 } else { sweep.elapsed().as_nanos() as u64 };

    let store = Instant::now();
    arm(host, after);
    let commit_ns = store.elapsed().as_nanos() as u64;
    // After the commit: a dead link means that the kernel took off what the control word names.
    host.pins.retire_link()?;

    let attach_begin = Instant::now();
    match off.and_then(|()| attach(host, fresh)) {
        Ok(()) => Ok(Switched {
            detach_ns,
            swept,
            sweep_ns,
            commit_ns,
            attach_ns: attach_begin.elapsed().as_nanos() as u64,
            gap_ns: begin.elapsed().as_nanos() as u64,
        }),
        Err(error) => Err(restore_previous(host, old, Active { epoch: after.epoch, ..before }, error)),
    }
}

/// Attach the host that is pinned and was left without being attached in the middle of a reattach, the old one or the new
/// one as the control word says, and finish or undo the reattach.
///
/// # Errors
/// Neither can be attached.
pub(crate) fn resume<K: Kernel>(pins: &K) -> Result<Host<K>> {
    let mut host = Host::pinned(pins)?;
    let Some(Reattach { from, to }) = host.registry.pending.as_ref().and_then(|p| p.reattach.clone()) else {
        return Ok(host);
    };
    pins.check_attach()?;
    let kernel = pins.btf()?;
    let committed = recover::is_committed(&host);
    let terms = if committed { &to } else { &from };
    log::warn!("a reattach was cut off: attaching the {} policy", if committed { "new" } else { "old" });
    let active = host.data.active();
    arm(&host, active);
    let first = pins.load_host(&kernel, terms).and_then(|mut object| attach(&mut host, &mut object));
    if let Err(error) = first {
        let before = host.registry.generations.last().filter(|_| committed).cloned();
        let Some(before) = before else { return Err(error) };
        arm(&host, Active { slot: before.slot, generation: before.number, epoch: active.epoch });
        let again = pins.load_host(&kernel, &from).and_then(|mut object| attach(&mut host, &mut object));
        if let Err(again) = again {
            return Err(Error::NotPutBack { source: Box::new(error), again: Box::new(again) });
        }
        log::warn!("{error}; the old policy was attached again");
    }
    recover::recover(&mut host)?;
    Ok(host)
}

/// Make the shared memory say what is to run when the host is attached. Nothing is attached yet.
fn arm<K: Kernel>(host: &Host<K>, active: Active) {
    let named = host.registry.queues.iter().filter(|q| q.slots.contains(&u32::from(active.slot)));
    host.data.set_boot_queues(&named.map(|q| host.family(q)).collect::<Vec<_>>());
    host.wait_for_families();
    // The kernel destroyed all queues, and ejects a scheduler that asks for one that is not there.
    host.data.set_orphans(&[], None);
    host.data.restore_vtime(true);
    host.data.commit(active);
}

/// Attach a host that was loaded, and pin its link.
pub(crate) fn attach<K: Kernel>(host: &mut Host<K>, object: &mut K::Object) -> Result<()> {
    // Not sooner: why the one before was taken off is of use to whoever finds that this one cannot be attached.
    host.data.clear_exit();
    host.data.open_task_table();
    let log = KernelLog::mark();
    let link = host.pins.attach(object)?;
    // At once, so that the scheduler outlives this process from here on. The pin alone keeps it then: `stop` removes the pin.
    host.pins.pin_link(link)?;
    enabled(host, log)
}

/// Attach succeeds even where the kernel then disables the scheduler: read what it says. The link's pin goes if so. `log`: the
/// kernel's, from before the attach.
fn enabled<K: Kernel>(host: &mut Host<K>, mut log: KernelLog) -> Result<()> {
    let exited = || host.data.exit_reason().is_some();
    if host.pins.wait_until_enabled(exited, ENABLE_TIMEOUT) && host.pins.ops().starts_with(names::NAME) {
        host.attached = true;
        return Ok(());
    }
    let error = not_enabled(&host.pins, host.data.exit_reason().unwrap_or_default(), log.words());
    host.pins.retire_link()?;
    Err(error)
}

fn not_enabled<K: Kernel>(pins: &K, reason: String, words: String) -> Error {
    Error::NotEnabled { what: "the host".to_string(), state: pins.state(), reason, words }
}

/// The new host is not attached: attach the old one again, and undo the preparation. Records that were brought up to
/// the new epoch keep that stamp, so the epoch stays; its plan only wrote where the old policy does not look.
fn restore_previous<K: Kernel>(
    host: &mut Host<K>,
    old: Option<K::Attached>,
    before: Active,
    error: Error,
) -> Error {
    arm(host, before);
    let again = match &old {
        Some(old) => {
            let off = wait_until_off(&host.pins);
            host.data.clear_exit();
            host.data.open_task_table();
            let log = KernelLog::mark();
            off.and_then(|()| attach_again(&host.pins, old)).and_then(|()| enabled(host, log))
        }
        None => Ok(()),
    };
    // The registry first: whatever comes of it, the next command is to find no half of a reattach.
    let undone = recover::recover(host);
    match (again.and(undone), old) {
        (Ok(()), Some(_)) => Error::PutBack { source: Box::new(error) },
        (Ok(()), None) => error,
        (Err(again), _) => Error::NotPutBack { source: Box::new(error), again: Box::new(again) },
    }
}

/// Step 5. The pin goes first: killed between the two, the link goes with this process. An error means that it is
/// attached as before.
fn detach<K: Kernel>(pins: &K, attached: &K::Attached) -> Result<()> {
    pins.unpin_link()?;
    if let Err(error) = pins.detach(attached) {
        pins.pin_attached(attached)?;
        return Err(error);
    }
    Ok(())
}

/// Attach again what was detached.
fn attach_again<K: Kernel>(pins: &K, attached: &K::Attached) -> Result<()> {
    pins.pin_link(pins.attach_again(attached)?)
}

/// Wait until the kernel has let go of what ran. Another scheduler in its place is an error.
fn wait_until_off<K: Kernel>(pins: &K) -> Result<()> {
    let deadline = Instant::now() + DETACH_TIMEOUT;
    loop {
        match pins.state().as_str() {
            "disabled" => return Ok(()),
            "enabled" if !pins.ops().starts_with(names::NAME) => {
                return Err(Error::OtherScheduler { ops: pins.ops(), state: pins.state() });
            }
            _ if Instant::now() > deadline => {
                return Err(not_enabled(pins, "it does not let go of it".to_string(), String::new()));
            }
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

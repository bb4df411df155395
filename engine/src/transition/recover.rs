//! Finish or undo what a killed command left, told apart by the control word: if it holds the pending generation the
//! commit happened.

use crate::error::Result;
use crate::host::Host;
use crate::host::registry::Kind;
use crate::host::scopes::SCOPES;
use crate::host::worker_pool::WorkerPool;
use crate::transition::finish;
use crate::transition::kernel::Kernel;
use crate::transition::quiesce;

/// Bring a host whose last command was killed back to one without a pending swap. Idempotent. The host need not be
/// attached: then it has no queues, and only its registry and records are brought in order.
///
/// # Errors
/// The host's maps cannot be changed.
pub(crate) fn recover<K: Kernel>(host: &mut Host<K>) -> Result<()> {
    let Some(pending) = host.registry.pending.clone() else { return Ok(()) };
    if pending.reattach.is_some() {
        remake_queues(host)?;
    }
    if let Some(slot) = pending.hold.filter(|slot| *slot == host.data.active().slot) {
        log::warn!("going on with the rollback to generation {} that was cut off", pending.generation.number);
        quiesce::run(host, &pending, slot, &SCOPES.iter().collect::<Vec<_>>())?;
    }
    if is_committed(host) {
        log::warn!("finishing the swap to generation {} that was cut off", pending.generation.number);
        let crew = WorkerPool::spawn();
        host.start_handover(false);
        host.settle()?;
        host.start_handover(true);
        let swept = K::sweep_all(host, &SCOPES.each_ref(), None, pending.sweeper, &crew);
        swept.into_iter().try_for_each(|swept| swept.map(drop))?;
        finish::hand_over(host)?;
        finish::mark_complete(host);
        return Ok(());
    }
    log::warn!("undoing the preparation of generation {} that was cut off", pending.generation.number);
    if let Some(slot) = pending.hold {
        return abandon(host, slot);
    }
    if matches!(pending.generation.kind, Kind::Rollback | Kind::Recovery) {
        // These prepare nothing but this: their policy was and stays loaded, and the running one's queues are its own.
        host.data.set_orphans(&[], None);
        host.registry.pending = None;
        return host.save();
    }
    abandon(host, pending.generation.slot)
}

/// Does the control word hold the pending generation?
pub(crate) fn is_committed<K: Kernel>(host: &Host<K>) -> bool {
    let active = host.data.active();
    let is = |g: &crate::host::registry::Generation| active.slot == g.slot && active.generation == g.number;
    host.registry.pending.as_ref().is_some_and(|p| is(&p.generation))
}

/// Undo the preparation of `slot`, which is not active.
pub(crate) fn abandon<K: Kernel>(host: &mut Host<K>, slot: u8) -> Result<()> {
    host.empty(slot)?;
    host.registry.evict(slot);
    finish::hand_over(host)?;
    host.registry.pending = None;
    host.save()
}

/// The kernel destroyed all queues when the host was detached, and its init made those of the running policy only. The
/// other loaded policies must find theirs when they are gone back to.
pub(crate) fn remake_queues<K: Kernel>(host: &Host<K>) -> Result<()> {
    if !host.attached {
        return Ok(());
    }
    // The walk over all tasks is done.
    host.data.restore_vtime(false);
    host.create_queues(&host.registry.queues)
}

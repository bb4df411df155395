//! Finish or undo what a killed command left, told apart by the control word: if it holds the pending generation the
//! commit happened.

use crate::error::Result;
use crate::hold;
use crate::host::Host;
use crate::host::Sweeper;
use crate::scopes::SCOPES;
use crate::swap;

/// Bring a host whose last command was killed back to one without a pending swap. Idempotent.
///
/// # Errors
/// The host's maps cannot be changed.
pub fn recover(host: &mut Host) -> Result<()> {
    let Some(pending) = host.registry.pending.clone() else { return Ok(()) };
    let mut active = host.data.active();
    if let Some(slot) = pending.hold.filter(|slot| *slot == active.slot) {
        log::warn!("going on with the rollback to generation {} that was cut off", pending.generation.number);
        hold::run(host, &pending, slot, &SCOPES.iter().collect::<Vec<_>>())?;
        active = host.data.active();
    }
    if active.slot == pending.generation.slot && active.generation == pending.generation.number {
        log::warn!("finishing the swap to generation {} that was cut off", pending.generation.number);
        host.settle()?;
        let sweeper = Sweeper { slot: pending.sweeper, ..Sweeper::default() };
        SCOPES.iter().try_for_each(|scope| host.sweep(scope, sweeper).map(|_| ()))?;
        swap::hand_over(host)?;
        swap::close_books(host);
        return Ok(());
    }
    log::warn!("undoing the preparation of generation {} that was cut off", pending.generation.number);
    if let Some(slot) = pending.hold {
        return abandon(host, slot);
    }
    if pending.generation.kind == crate::registry::Kind::Rollback {
        // A rollback prepares nothing but this: its policy was and stays loaded, and the running one's queues are its own.
        host.data.set_orphans(&[]);
        host.registry.pending = None;
        return host.save();
    }
    abandon(host, pending.generation.slot)
}

/// Undo the preparation of `slot`, which is not active.
pub(crate) fn abandon(host: &mut Host, slot: u8) -> Result<()> {
    host.empty(slot)?;
    host.registry.evict(slot);
    swap::hand_over(host)?;
    host.registry.pending = None;
    host.save()
}

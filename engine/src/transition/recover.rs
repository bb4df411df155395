//! Finish or undo what a killed command left, told apart by the control word: if it holds the pending generation the
//! commit happened.

use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::registry::Kind;
use crate::host::registry::Pending;
use crate::host::scopes::SCOPES;
use crate::host::worker_pool::WorkerPool;
use crate::transition::finish;
use crate::transition::kernel::Kernel;
use crate::transition::quiesce;

/// What is to be done with what a killed command left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// No policy runs: the rollback goes on in this slot, and is then to be finished.
    GoOn { slot: u8 },
    /// The commit is done: what follows it is to be done again, from the settle on.
    Finish,
    /// The commit is not done, and this slot was prepared for it.
    Undo { slot: u8 },
    /// The commit is not done, and nothing was prepared for it but the registry.
    Forget,
}

/// Decides it. `active`: the control word, which alone tells whether the commit happened.
pub(crate) fn decide(pending: &Pending, active: Active) -> Action {
    let Pending { generation, hold, .. } = pending;
    match (active.slot, active.generation) {
        (slot, _) if *hold == Some(slot) => Action::GoOn { slot },
        (slot, number) if (slot, number) == (generation.slot, generation.number) => Action::Finish,
        _ => match (hold, generation.kind) {
            (Some(slot), _) => Action::Undo { slot: *slot },
            // A rollback prepares no slot, and its policy's queues already exist.
            (None, Kind::Rollback | Kind::Recovery) => Action::Forget,
            (None, Kind::Start | Kind::Swap) => Action::Undo { slot: generation.slot },
        },
    }
}

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
    let number = pending.generation.number;
    match decide(&pending, host.data.active()) {
        Action::GoOn { slot } => {
            log::warn!("going on with the rollback to generation {number} that was cut off");
            quiesce::run(host, &pending, slot, &SCOPES.iter().collect::<Vec<_>>())?;
            finish_cut_off(host, &pending)
        }
        Action::Finish => finish_cut_off(host, &pending),
        Action::Undo { slot } => {
            log::warn!("undoing the preparation of generation {number} that was cut off");
            abandon(host, slot)
        }
        Action::Forget => {
            log::warn!("forgetting generation {number}, whose commit was cut off");
            host.data.set_orphans(&[], None);
            host.registry.pending = None;
            host.save()
        }
    }
}

fn finish_cut_off<K: Kernel>(host: &mut Host<K>, pending: &Pending) -> Result<()> {
    log::warn!("finishing the swap to generation {} that was cut off", pending.generation.number);
    let workers = WorkerPool::spawn();
    host.start_handover(false);
    host.settle()?;
    host.start_handover(true);
    let swept = host.sweep_all(&SCOPES.each_ref(), None, pending.sweeper, &workers);
    swept.into_iter().try_for_each(|swept| swept.map(drop))?;
    finish::hand_over(host)?;
    finish::mark_complete(host);
    Ok(())
}

/// Does the control word hold the pending generation?
pub(crate) fn is_committed<K: Kernel>(host: &Host<K>) -> bool {
    let pending = host.registry.pending.as_ref();
    pending.is_some_and(|pending| decide(pending, host.data.active()) == Action::Finish)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::registry::Generation;

    fn pending(slot: u8, number: u32, kind: Kind, hold: Option<u8>) -> Pending {
        let (policy, version) = (String::new(), String::new());
        let generation = Generation { number, kind, slot, load: 1, policy, version, unix_time: 0 };
        Pending { generation, epoch: 1, sweeper: None, hold, reattach: None }
    }

    proptest! {
        /// Nothing is undone that runs, nothing is finished that does not, and there is always something to do.
        #[test]
        fn the_control_word_alone_decides(
            slot in 0..4u8,
            number in 1..9u32,
            kind in prop::sample::select(vec![Kind::Start, Kind::Swap, Kind::Rollback, Kind::Recovery]),
            hold in prop::option::of(0..4u8),
            active in (0..4u8, 0..9u32),
        ) {
            prop_assume!(hold != Some(slot));
            let active = Active { slot: active.0, generation: active.1, epoch: 1 };
            let runs = (active.slot, active.generation) == (slot, number);
            match decide(&pending(slot, number, kind, hold), active) {
                Action::GoOn { slot } => prop_assert_eq!((Some(slot), slot), (hold, active.slot)),
                Action::Finish => prop_assert!(runs),
                Action::Undo { slot: undone } => {
                    prop_assert!(!runs);
                    prop_assert!(hold.is_none_or(|hold| undone == hold && hold != active.slot));
                }
                Action::Forget => prop_assert!(!runs && matches!(kind, Kind::Rollback | Kind::Recovery)),
            }
        }
    }
}

//! The hold: how a rollback runs the inverse of a conversion of the author's own.
//!
//! The older policy was loaded before the newer one was written, so it does not have the newer one's inverse and cannot
//! bring a record back when it first touches it. So for as long as a sweep takes no policy runs at all:
//!
//! 1. an empty slot becomes active: the host does what the kernel does for a scheduler without ops, in the order in which
//!    tasks come, and serves the newer policy's queues itself;
//! 2. a grace period, after which no op of the newer policy is in flight, so that nothing it writes is lost;
//! 3. the epoch moves on, and the newer policy's own sweep brings every record back;
//! 4. the older policy becomes active.
//!
//! Killed before 1 it is undone, after 1 it is finished: see `recover.rs`. The generation stays the newer policy's until 4.
//!
//! Where the rollback takes a reattach no policy runs between detach and attach anyway: there only 3 is done, and if it is
//! killed the newer policy is attached again, whose own columns 3 does not touch.

use crate::transition::commit;
use crate::transition::kernel::Kernel;
use crate::transition::plan;
use std::time::Instant;

use state_migrate::Plan;

use crate::error::Result;
use crate::host::Host;
use crate::host::abi;
use crate::host::abi::Active;
use crate::host::registry::Generation;
use crate::host::registry::Pending;
use crate::host::registry::Registry;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::Swept;
use crate::host::worker_pool::WorkerPool;
use crate::observe::report::Timings;

/// A rollback, planned.
#[derive(Debug)]
pub(crate) struct QuiescedRollback {
    pub plan: Plan,
    /// The slot to hold in, if it must. The registry has nothing there; it has yet to be emptied.
    pub hold: Option<u8>,
}

/// Plans the rollback from `running` to `target`. If a hold needs a slot and all are taken, the policy is evicted whose last
/// commit is oldest. A rollback that is not `in_place` needs no slot.
pub(crate) fn plan_back(
    registry: &mut Registry,
    running: u8,
    target: u8,
    in_place: bool,
) -> Result<QuiescedRollback> {
    let plan =
        |registry: &Registry| state_migrate::plan_back(&registry.layout, running.into(), target.into());
    let planned = plan(registry)?;
    let caller = plan::caller(&planned).filter(|caller| in_place && *caller != target);
    let Some(caller) = caller else { return Ok(QuiescedRollback { plan: planned, hold: None }) };
    let slot = registry.choose_slot_but(&[running, target, caller]);
    if registry.slot(slot).is_none() {
        return Ok(QuiescedRollback { plan: planned, hold: Some(slot) });
    }
    registry.evict(slot);
    // A way over a column of the policy that went is lost, but none with a call: those have nothing in between.
    Ok(QuiescedRollback { plan: plan(registry)?, hold: Some(slot) })
}

/// What a hold did.
#[derive(Debug)]
pub(crate) struct Quiesced {
    pub swept: Vec<Swept>,
    /// From step 1 to step 4, ns.
    pub hold_ns: u64,
    /// Step 2, ns.
    pub settle_ns: u64,
    /// Step 3, ns.
    pub sweep_ns: u64,
    /// The store of step 4, ns.
    pub commit_ns: u64,
}

impl Quiesced {
    pub(crate) fn report(self, timings: &mut Timings) -> Vec<Swept> {
        timings.hold_ns = self.hold_ns;
        timings.settle_ns = self.settle_ns;
        timings.sweep_ns = self.sweep_ns;
        timings.commit_ns = self.commit_ns;
        self.swept
    }
}

/// Hold in `slot`, from the beginning or from wherever an earlier command was killed.
pub(crate) fn run<K: Kernel>(
    host: &Host<K>,
    pending: &Pending,
    slot: u8,
    scopes: &[&ScopeParts],
) -> Result<Quiesced> {
    let caller = pending.sweeper.and_then(|slot| host.registry.slot(slot)).map_or(0, |info| info.load);
    host.data.set_lacks(slot, abi::LACKS_ENQ_EXITING | abi::LACKS_ENQ_MIGRATION_DISABLED);
    host.data.set_caller(slot, caller);
    let empty = Active { slot, ..host.data.active() };

    let workers = WorkerPool::spawn();
    commit::adopt(host, empty);
    let begin = Instant::now();
    host.data.commit(empty);
    host.settle()?;
    let settled = Instant::now();
    host.data.commit(Active { epoch: pending.epoch, ..empty });
    let swept = convert_back(host, pending.sweeper, scopes, &workers);
    let sweep_ns = settled.elapsed().as_nanos() as u64;
    let Generation { slot, number: generation, .. } = pending.generation;
    let after = Active { slot, generation, epoch: pending.epoch };
    commit::adopt(host, after);
    let commit_ns = commit::commit(host, after);
    Ok(Quiesced {
        swept,
        hold_ns: begin.elapsed().as_nanos() as u64,
        settle_ns: (settled - begin).as_nanos() as u64,
        sweep_ns,
        commit_ns,
    })
}

/// Step 3 of a rollback by a reattach: the host is detached, and the control word still names the newer policy.
pub(crate) fn convert_back_detached<K: Kernel>(
    host: &Host<K>,
    pending: &Pending,
    scopes: &[&ScopeParts],
) -> Vec<Swept> {
    host.data.commit(Active { epoch: pending.epoch, ..host.data.active() });
    convert_back(host, pending.sweeper, scopes, &WorkerPool::spawn())
}

fn convert_back<K: Kernel>(
    host: &Host<K>,
    sweeper: Option<u8>,
    scopes: &[&ScopeParts],
    workers: &WorkerPool,
) -> Vec<Swept> {
    let all = host.sweep_all(scopes, None, sweeper, workers);
    // Whatever happens, tasks must not stay without a policy.
    let failed =
        |scope: &ScopeParts, e| log::warn!("columns of scope {} stay as they were left: {e}", scope.scope);
    scopes.iter().zip(all).filter_map(|(scope, swept)| swept.map_err(|e| failed(scope, e)).ok()).collect()
}

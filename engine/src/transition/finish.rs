//! Steps 6 and 7: settle, sweep, hand over. Then the swap is marked complete.

use crate::error::Result;
use crate::host::Host;
use crate::host::scopes::ScopeParts;
use crate::host::worker_pool::WorkerPool;
use crate::observe::report::Report;
use crate::os::clock::Clock;
use crate::os::clock::monotonic_ns;
use crate::transition::kernel::Kernel;
use crate::transition::plan::log_step;

/// Steps 6 and 7, and the registry closed.
pub(crate) fn finish<K: Kernel>(
    host: &mut Host<K>,
    report: &mut Report,
    scopes: &[&ScopeParts],
    compiled: Option<&K::Compiled>,
    sweeper: Option<u8>,
    clock: &mut Clock,
) -> Result<()> {
    report.committed_at_ns = monotonic_ns();
    // Those who will sweep are there when it is settled. They run when the new policy lets them.
    let workers = (!scopes.is_empty()).then(WorkerPool::spawn_at_min_nice);
    log_step("settle");
    host.settle()?;
    host.start_handover(true);
    report.timings.settle_ns += clock.lap();
    log_step("sweep");
    if let Some(workers) = &workers {
        report.swept =
            host.sweep_all(scopes, compiled, sweeper, workers).into_iter().collect::<Result<_>>()?;
        report.timings.sweep_ns = clock.lap();
    }
    log_step("hand over");
    report.tasks_handed_over = hand_over(host)?;
    report.timings.hand_over_ns = clock.lap();
    log_step("close");
    mark_complete(host);
    report.timings.close_ns = clock.lap();
    Ok(())
}

/// Hand over the tasks that sit on queues which the running policy does not name, and destroy the queues that nobody
/// names. No op of an earlier policy is in flight any more, so nothing is added to them.
pub(crate) fn hand_over<K: Kernel>(host: &mut Host<K>) -> Result<u64> {
    if !host.attached {
        // The kernel destroyed its queues; the attach creates them again.
        host.registry.queues.retain(|q| !q.slots.is_empty());
        host.save()?;
        return Ok(0);
    }
    let active = host.data.active();
    let mut handed = 0;
    for queue in host.registry.queues.iter().filter(|q| !q.slots.contains(&u32::from(active.slot))) {
        handed += host.drain_queue(queue)?;
    }
    handed += u64::from(host.data.orphans_served());
    // The timer may not be done with the slices yet.
    host.data.set_orphans(&[], Some(active));
    let (kept, unnamed): (Vec<_>, Vec<_>) =
        std::mem::take(&mut host.registry.queues).into_iter().partition(|q| !q.slots.is_empty());
    host.registry.queues = kept;
    if !unnamed.is_empty() {
        // The kernel ejects a scheduler that asks for a queue which is gone: wait until no dispatch still may.
        host.settle()?;
        unnamed.iter().try_for_each(|q| host.destroy_queue(q))?;
        host.save()?;
    }
    Ok(handed)
}

/// The commit is done and nothing is left to finish. The registry was written before the commit, with the generation
/// pending; that it is not any more is one store. Who reads them next takes it from there.
pub(crate) fn mark_complete<K: Kernel>(host: &mut Host<K>) {
    if let Some(pending) = &host.registry.pending {
        host.data.close(pending.generation.number);
    }
    host.registry.settle(host.data.closed());
}

//! Step 5: one store.

use crate::host::Host;
use crate::host::abi::Active;
use crate::transition::kernel::Kernel;
use std::time::Instant;

/// Let the host serve the queues that the policy in `slot` does not name, from just before its commit on: a task that
/// waits there when the commit comes must not depend on this process, which may be killed, and which in a moment waits
/// for a grace period that the task may be needed for. The host's timer, which waits for the commit, hands those tasks over,
/// and shortens the slices that the earlier policy gave: see `bpf/host/handover.bpf.h`.
pub(crate) fn adopt<K: Kernel>(host: &Host<K>, after: Active) {
    if !host.attached {
        // There are no queues.
        return;
    }
    let queues = host.registry.queues.iter().filter(|q| !q.slots.contains(&u32::from(after.slot)));
    host.data.set_orphans(&queues.map(|q| host.family(q)).collect::<Vec<_>>(), Some(after));
    host.start_handover(false);
}

/// Store the control word as it is. The page faults and cache misses of the first store from this process, and where
/// CPUs are emulated the translation of the code around it, are taken here and not in the commit.
pub(crate) fn warm_up_commit<K: Kernel>(host: &Host<K>) {
    let _ = commit(host, host.data.active());
}

/// Step 5; how long it took, ns. It reads the clock itself: then the rehearsal runs all of the code that the commit does.
#[inline(never)]
pub(crate) fn commit<K: Kernel>(host: &Host<K>, after: Active) -> u64 {
    let begin = Instant::now();
    host.data.commit(after);
    begin.elapsed().as_nanos() as u64
}

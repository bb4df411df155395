//! Step 5: one store.

use crate::host::Host;
use crate::host::abi::Active;
use crate::transition::kernel::Kernel;
use std::time::Instant;

/// From just before the commit the host serves the queues that `after`'s policy does not name. Their tasks must not depend on
/// this process: it may be killed, and the grace period may wait for one of them. The host's timer waits for the commit, hands
/// those tasks over, and shortens the slices that the earlier policy gave: see `bpf/host/handover.bpf.h`.
pub(crate) fn adopt<K: Kernel>(host: &Host<K>, after: Active) {
    if !host.attached {
        // There are no queues.
        return;
    }
    let queues = host.registry.queues.iter().filter(|q| !q.slots.contains(&u32::from(after.slot)));
    host.data.set_orphans(&queues.map(|q| host.family(q)).collect::<Vec<_>>(), Some(after));
    host.start_handover(false);
}

/// Stores the control word as it is. The first store of this process takes page faults and cache misses, and on emulated CPUs
/// the translation of the code around it: they are taken here and not in the commit.
pub(crate) fn warm_up_commit<K: Kernel>(host: &Host<K>) {
    let _ = commit(host, host.data.active());
}

/// Step 5. Returns how long it took, ns. It reads the clock itself, so that [`warm_up_commit`] runs the same code.
#[inline(never)]
pub(crate) fn commit<K: Kernel>(host: &Host<K>, after: Active) -> u64 {
    let begin = Instant::now();
    host.data.commit(after);
    begin.elapsed().as_nanos() as u64
}

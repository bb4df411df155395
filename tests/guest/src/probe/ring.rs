//! Where a probe thread leaves its wakings: a ring of fixed size with one writer and one reader and no lock, so
//! that reading it cannot delay the probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ring. Every page of it is touched when it is made: no page fault while probing.
#[derive(Debug)]
pub(super) struct Ring {
    /// Target and delay of each waking, in nanoseconds.
    slots: Box<[[AtomicU64; 2]]>,
    /// Wakings so far.
    head: AtomicU64,
    /// What the thread sleeps to now.
    target: AtomicU64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]).collect();
        Self { slots, head: AtomicU64::new(0), target: AtomicU64::new(0) }
    }

    /// Says what the thread sleeps to before its first waking.
    pub(super) fn set_target(&self, target: u64) {
        self.target.store(target, Ordering::Release);
    }

    /// Records a waking and says what the thread sleeps to next. Overwrites the oldest waking when full.
    pub(super) fn push(&self, target: u64, delay: u64, next: u64) {
        let head = self.head.load(Ordering::Relaxed);
        let slot = &self.slots[head as usize % self.slots.len()];
        slot[0].store(target, Ordering::Relaxed);
        slot[1].store(delay, Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        self.target.store(next, Ordering::Release);
    }
}

/// Takes wakings out of a [`Ring`], in order.
#[derive(Debug)]
pub(super) struct Reader {
    ring: Arc<Ring>,
    next: u64,
}

impl Reader {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, next: 0 }
    }

    /// What the thread sleeps to now. All wakings for earlier targets can be taken.
    pub(super) fn target(&self) -> u64 {
        self.ring.target.load(Ordering::Acquire)
    }

    /// Gives the wakings with a target before `end` to `each`, as target and delay; returns how many were
    /// overwritten before they could be taken.
    pub(super) fn take(&mut self, end: u64, mut each: impl FnMut(u64, u64)) -> u64 {
        let head = self.ring.head.load(Ordering::Acquire);
        let size = self.ring.slots.len() as u64;
        let mut lost = 0;
        while self.next < head {
            let slot = &self.ring.slots[self.next as usize % self.ring.slots.len()];
            let (target, delay) = (slot[0].load(Ordering::Acquire), slot[1].load(Ordering::Acquire));
            // The writer may be filling slot `head % size`, so that one is not to be trusted either.
            if self.ring.head.load(Ordering::Acquire) - self.next >= size {
                lost += 1;
            } else if target >= end {
                break;
            } else {
                each(target, delay);
            }
            self.next += 1;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lapped_reader_says_what_it_lost() {
        let ring = Arc::new(Ring::new(8));
        let mut reader = Reader::new(Arc::clone(&ring));
        for at in 0..20 {
            ring.push(at, 100 + at, at + 1);
        }
        let mut seen = Vec::new();
        let lost = reader.take(18, |target, delay| seen.push((target, delay)));
        assert_eq!(lost, 13);
        assert_eq!(seen, (13..18).map(|at| (at, 100 + at)).collect::<Vec<_>>());
        assert_eq!(reader.target(), 20);
        seen.clear();
        assert_eq!(reader.take(u64::MAX, |target, delay| seen.push((target, delay))), 0);
        assert_eq!(seen, [(18, 118), (19, 119)]);
    }
}

//! How far the threads of a load have come.

use serde::Serialize;

use super::shared::Shared;
use super::spec::{Kind, LoadSpec};
use crate::clock::now_ns;

/// How far the threads of one kind have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KindProgress {
    /// The kind.
    pub kind: Kind,
    /// Threads of it.
    pub threads: usize,
    /// Work done by all of them, in the kind's unit.
    pub ops: u64,
    /// Work done by the one that did least.
    pub least: u64,
    /// How long the one that waits longest is overdue to do its next work, in nanoseconds; 0 when none is. A thread
    /// that sleeps of its own will is not overdue. On a slow machine some milliseconds are ordinary; what
    /// grows as time passes is a thread that the scheduler starves.
    pub overdue_ns: u64,
}

/// How far each kind has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Progress {
    /// One for each of [`Kind::ALL`], in that order.
    pub kinds: [KindProgress; Kind::ALL.len()],
}

impl Progress {
    pub(super) fn read(spec: &LoadSpec, shared: &Shared) -> Self {
        Self {
            kinds: Kind::ALL.map(|kind| {
                let threads = spec.count(kind);
                let mut sum = KindProgress { kind, threads, ops: 0, least: u64::MAX, overdue_ns: 0 };
                for index in 0..threads {
                    let cell = shared.cell(kind, index);
                    let count = cell.count();
                    sum.ops += count;
                    sum.least = sum.least.min(count);
                    sum.overdue_ns = sum.overdue_ns.max(cell.overdue_ns(now_ns()));
                }
                if threads == 0 {
                    sum.least = 0;
                }
                sum
            }),
        }
    }

    /// That of one kind.
    pub fn of(&self, kind: Kind) -> &KindProgress {
        &self.kinds[kind as usize]
    }

    /// The kinds that have threads and did no work between `earlier` and this. Empty when all advance.
    pub fn stuck_since(&self, earlier: &Self) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.of(*kind).threads > 0 && self.of(*kind).ops == earlier.of(*kind).ops)
            .collect()
    }

    /// The longest that any thread is overdue, in nanoseconds.
    pub fn overdue_ns(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.overdue_ns).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_worst_served() {
        let spec = LoadSpec::mixed(200);
        let shared = Shared::create(&spec, 2).unwrap();
        let before = Progress::read(&spec, &shared);
        assert_eq!(before.overdue_ns(), 0);
        shared.cell(Kind::Cpu, 0).done(u64::MAX);
        shared.cell(Kind::Cpu, 1).done(u64::MAX);
        shared.cell(Kind::Cpu, 1).done(1);
        let after = Progress::read(&spec, &shared);
        let cpu = after.of(Kind::Cpu);
        assert_eq!((cpu.threads, cpu.ops, cpu.least), (2, 3, 1));
        assert!(cpu.overdue_ns > 0 && cpu.overdue_ns == after.overdue_ns());
        assert_eq!(after.stuck_since(&before), [Kind::Sleep, Kind::Pair, Kind::Fork, Kind::Spawn]);
    }
}

//! What a load consists of, and which worker gets which part of it.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What a thread of the load does. Work is counted in the unit given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sleeps, wakes after a time of its own, does next to nothing. Unit: wake-ups.
    Sleep,
    /// Computes, in bursts or for ever. Unit: rounds of 10,000 steps.
    Cpu,
    /// One of two threads that pass a token back and forth over two pipes. Unit: tokens received.
    Pair,
    /// Forks a child that does a little work and exits, and waits for it. Unit: children.
    Fork,
    /// Creates a thread that does a little work and ends, and joins it. Unit: threads.
    Spawn,
}

impl Kind {
    /// All kinds, in the order in which their threads are numbered.
    pub const ALL: [Self; 5] = [Self::Sleep, Self::Cpu, Self::Pair, Self::Fork, Self::Spawn];
}

/// A load. Rates are over all threads of a kind together, per second, and are upper bounds: a machine that is
/// too slow for them does fewer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Live threads in all: those below, one main thread per worker process, and sleepers for the rest.
    pub threads: usize,
    /// Wake-ups of all sleepers. Each has its own mean period, between half and one and a half times what makes
    /// up this rate, and varies each sleep by an eighth.
    pub wakes_per_s: f64,
    /// Threads that compute.
    pub cpu_bound: usize,
    /// How long such a thread computes at a time, by the clock.
    pub cpu_burst: Duration,
    /// How long it then sleeps. Zero: it never does.
    pub cpu_rest: Duration,
    /// Its nice value, -20 to 19. Below 0 takes privilege.
    pub cpu_nice: i32,
    /// Message-passing pairs, two threads each.
    pub pairs: usize,
    /// Tokens sent and returned.
    pub round_trips_per_s: f64,
    /// Threads that fork. They live in a process of their own with few threads, because forking copies the
    /// memory map, and that of thousands of stacks takes long.
    pub forkers: usize,
    /// Forks.
    pub forks_per_s: f64,
    /// Threads that create threads; in the process of the forkers.
    pub spawners: usize,
    /// Threads created.
    pub spawns_per_s: f64,
    /// Worker processes for all but forkers and spawners.
    pub processes: usize,
    /// Stack of each thread in bytes; what is never touched takes no memory. At least 32 KiB is taken.
    pub stack_bytes: usize,
    /// Where all random numbers come from.
    pub seed: u64,
    /// What to execute as a worker instead of `/proc/self/exe`; it must call [`run_if_worker`] first.
    ///
    /// [`run_if_worker`]: super::run_if_worker
    pub program: Option<PathBuf>,
}

impl LoadSpec {
    /// `threads` threads of which nearly all sleep, and a few of every other kind.
    ///
    /// The rates do not grow with `threads`, so that a load of 40,000 takes no more of the machine than one of
    /// 400 and shows what the *number* of live tasks costs. Emulated, a wake-up takes some 50 us, a fork several
    /// milliseconds: 1,000 and 20 of these a second, and two threads that compute a quarter of the time at nice
    /// 10, leave two CPUs idle for more than half of the time, so that a probe still sees the scheduler rather
    /// than a queue. Sleepers' periods follow: 44 s on average with 40,000, 0.2 s with 200.
    pub fn mixed(threads: usize) -> Self {
        let few = if threads < 100 { 1 } else { 2 };
        Self {
            threads,
            wakes_per_s: 1_000.0,
            cpu_bound: few,
            cpu_burst: Duration::from_millis(20),
            cpu_rest: Duration::from_millis(60),
            cpu_nice: 10,
            pairs: 2 * few,
            round_trips_per_s: 200.0,
            forkers: few,
            forks_per_s: 20.0,
            spawners: few,
            spawns_per_s: 20.0,
            processes: (threads / 500).clamp(1, 8),
            stack_bytes: 32 << 10,
            seed: 1,
            program: None,
        }
    }

    /// Threads of `kind`, main threads of the workers left out.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Sleep => self.threads.saturating_sub(self.busy() + self.workers()),
            Kind::Cpu => self.cpu_bound,
            Kind::Pair => self.pairs * 2,
            Kind::Fork => self.forkers,
            Kind::Spawn => self.spawners,
        }
    }

    fn busy(&self) -> usize {
        self.cpu_bound + self.pairs * 2 + self.makers()
    }

    fn makers(&self) -> usize {
        self.forkers + self.spawners
    }

    /// Worker processes in all.
    fn workers(&self) -> usize {
        self.processes + usize::from(self.makers() > 0)
    }

    /// Mean time between two actions of one of `count` threads that together act `per_s` times a second.
    pub(super) fn period_ns(count: usize, per_s: f64) -> u64 {
        (count as f64 / per_s * 1e9) as u64
    }

    /// The parts of the workers, all threads dealt out evenly.
    ///
    /// # Errors
    /// There are fewer threads than the kinds and workers need, or a number makes no sense.
    pub(super) fn shares(&self) -> Result<Vec<Share>> {
        let rates = [self.wakes_per_s, self.round_trips_per_s, self.forks_per_s, self.spawns_per_s];
        ensure!(
            rates.iter().all(|rate| rate.is_finite() && *rate >= 0.001),
            "a load's rates must be 0.001/s or more"
        );
        ensure!(self.processes > 0, "a load needs a worker process");
        let needed = self.busy() + self.workers();
        ensure!(
            self.threads >= needed,
            "a load of {} threads is too small: its busy kinds and {} worker processes take {needed}",
            self.threads,
            self.workers(),
        );
        let mut shares: Vec<Share> = (0..self.processes)
            .map(|index| {
                let part =
                    |count: usize| index * count / self.processes..(index + 1) * count / self.processes;
                Share {
                    sleep: part(self.count(Kind::Sleep)),
                    cpu: part(self.cpu_bound),
                    pair: part(self.pairs),
                    ..Share::default()
                }
            })
            .collect();
        if self.makers() > 0 {
            shares.push(Share { fork: 0..self.forkers, spawn: 0..self.spawners, ..Share::default() });
        }
        Ok(shares)
    }
}

/// What one worker runs: which threads of each kind, by their number within it. (`pair` numbers pairs.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) sleep: Range<usize>,
    pub(super) cpu: Range<usize>,
    pub(super) pair: Range<usize>,
    pub(super) fork: Range<usize>,
    pub(super) spawn: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_every_thread_once() {
        for threads in [20, 200, 5_000, 40_000, 40_001] {
            let spec = LoadSpec::mixed(threads);
            let shares = spec.shares().unwrap();
            let total: usize = shares
                .iter()
                .map(|s| 1 + s.sleep.len() + s.cpu.len() + 2 * s.pair.len() + s.fork.len() + s.spawn.len())
                .sum();
            assert_eq!(total, threads);
            let mut next = 0;
            for share in shares.iter().filter(|share| !share.sleep.is_empty()) {
                assert_eq!(share.sleep.start, next);
                next = share.sleep.end;
            }
            assert_eq!(next, spec.count(Kind::Sleep));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(LoadSpec::mixed(5).shares().is_err());
        assert!(LoadSpec { processes: 0, ..LoadSpec::mixed(200) }.shares().is_err());
        assert!(LoadSpec { wakes_per_s: 0.0, ..LoadSpec::mixed(200) }.shares().is_err());
    }
}

//! The guard: watches a new policy through its probation, beside what the one before did just ahead of the commit, and
//! says when it is bad, long before the kernel's watchdog would eject the host.
//!
//! - `watch` counts, by BPF programs that are attached meanwhile (`bpf/guard.bpf.c`);
//! - [`recorder`] writes down what it sees in short windows, for a picture;
//! - [`sample`] is what was counted in one window of time;
//! - [`judge`] decides, and is a pure function of samples and [`Limits`].
//!
//! # When it is bad
//! A measure that depends on what the machine does must be beyond its limit in [`Limits::in_a_row`] windows one after the
//! other, and the limit is never below what any window of the baseline showed. If a swap changes nothing, windows before and
//! after it are exchangeable; that the `k` windows at some place after it are all above all `n` before it has then the
//! probability `1 / C(n + k, k)`, whatever the load's distribution. With the defaults, 40 before and 8 in a row, that is 1
//! in 377 million for each place.

pub mod judge;
pub mod recorder;
pub mod sample;
mod watch;

use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;

use crate::error::Result;
use crate::host::Host;
use crate::kernel;
use judge::Breach;
use judge::Judge;
use watch::Watch;

/// What an operator can set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Length of a window.
    pub window: Duration,
    /// Windows before the commit.
    pub baseline: u32,
    /// Windows one after the other that must be beyond a limit.
    pub in_a_row: u32,
    /// The 99th percentile of the wake-up delay may grow to so many times the baseline's median window.
    pub delay_factor: f64,
    /// A 99th percentile below this is never bad.
    pub delay_floor: Duration,
    /// A task that wants to run may wait so long, or twice as long as one did in the baseline.
    pub longest_wait: Duration,
    /// Context switches may fall to this part of the least window of the baseline while tasks wait.
    pub throughput: f64,
    /// A kernel event that tells of trouble may be so many times as frequent as in the worst window of the baseline.
    pub events_factor: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window: Duration::from_millis(250),
            baseline: 40,
            in_a_row: 8,
            delay_factor: 3.0,
            delay_floor: Duration::from_millis(1),
            longest_wait: Duration::from_secs(10),
            throughput: 0.2,
            events_factor: 10.0,
        }
    }
}

/// How probation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was beyond a limit.
    Good,
    /// Something was: take it back.
    Bad(Breach),
    /// The kernel took the host off.
    Ejected,
    /// Another generation runs: someone has swapped or rolled back meanwhile.
    Superseded,
}

/// A watch that has its baseline.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    watch: Watch,
    judge: Judge,
}

impl Guard {
    /// Attach, and watch what runs for as long as the baseline takes.
    ///
    /// # Errors
    /// The kernel takes the programs not, or the host is not running.
    pub fn with_baseline(host: &Host, limits: Limits) -> Result<Guard> {
        let mut watch = Watch::attach(host)?;
        let mut baseline = Vec::new();
        for _ in 0..limits.baseline {
            std::thread::sleep(limits.window);
            baseline.push(watch.sample(host)?);
        }
        Ok(Guard { limits, watch, judge: Judge::new(limits, baseline) })
    }

    /// Watch `generation`, which has just been committed, for `probation`.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn probation(&mut self, host: &Host, generation: u32, probation: Duration) -> Result<Verdict> {
        let begin = Instant::now();
        // What was counted between baseline and commit is of neither.
        self.watch.sample(host)?;
        while begin.elapsed() < probation {
            std::thread::sleep(self.limits.window.min(probation));
            let sample = self.watch.sample(host)?;
            if kernel::state() != "enabled" {
                return Ok(Verdict::Ejected);
            }
            if host.data.active().generation != generation {
                return Ok(Verdict::Superseded);
            }
            if let Some(mut breach) = self.judge.next(&sample) {
                breach.after_ms = begin.elapsed().as_millis() as u64;
                return Ok(Verdict::Bad(breach));
            }
        }
        Ok(Verdict::Good)
    }
}

/// Kernel events that tell of trouble. Others only say how a scheduler works.
/// `Documentation/scheduler/sched-ext.rst`.
pub const BAD_EVENTS: [&str; 5] = [
    "SCX_EV_SELECT_CPU_FALLBACK",
    "SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE",
    "SCX_EV_REENQ_LOCAL_REPEAT",
    "SCX_EV_INSERT_NOT_OWNED",
    "SCX_EV_BYPASS_ACTIVATE",
];

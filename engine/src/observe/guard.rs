//! The guard: watches a new policy through its probation, beside what the one before did just ahead of the commit, and
//! says when it is bad, long before the kernel's watchdog would eject the host.
//!
//! - `watch` counts, by BPF programs that are attached meanwhile (`bpf/tools/guard.bpf.c`);
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
use crate::kernel::sysfs;
use judge::Evaluator;
use judge::Violation;
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
    Bad(Violation),
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
    judge: Evaluator,
}

impl Guard {
    /// Attach, and watch what runs for as long as the baseline takes.
    ///
    /// # Errors
    /// The kernel takes the programs not, or the host is not running.
    pub fn with_baseline(host: &Host, limits: Limits) -> Result<Guard> {
        let mut watch = Watch::attach(host)?;
        let uncounted = uncounted(sysfs::events().keys());
        if !uncounted.is_empty() {
            log::warn!(
                "the guard cannot see these events, which this kernel does not count: {}",
                uncounted.join(", ")
            );
        }
        let mut baseline = Vec::new();
        for _ in 0..limits.baseline {
            std::thread::sleep(limits.window);
            baseline.push(watch.sample(host)?);
        }
        Ok(Guard { limits, watch, judge: Evaluator::new(limits, baseline) })
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
            if sysfs::state() != "enabled" {
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

/// Kernel events that tell of trouble, by the words of their names, in order. Others only say how a scheduler works.
/// `Documentation/scheduler/sched-ext.rst`. Kernels rename counters: `SCX_EV_REENQ_LOCAL_REPEAT` is `SCX_EV_REENQ_REPEAT` since
/// v7.3. So the names are those of the running kernel, and each one with these words is watched.
pub const BAD_EVENTS: [&[&str]; 5] = [
    &["SELECT", "CPU", "FALLBACK"],
    &["DISPATCH", "DSQ", "OFFLINE"],
    &["REENQ", "REPEAT"],
    &["INSERT", "NOT", "OWNED"],
    &["BYPASS", "ACTIVATE"],
];

/// Does a kernel event of this name tell of trouble?
pub fn is_bad_event(name: &str) -> bool {
    BAD_EVENTS.iter().any(|words| has_words(name, words))
}

/// Has the name these words, in this order?
fn has_words(name: &str, words: &[&str]) -> bool {
    let mut parts = name.strip_prefix("SCX_EV_").unwrap_or(name).split('_');
    words.iter().all(|word| parts.any(|part| part == *word))
}

/// Those of [`BAD_EVENTS`] that a kernel with counters of these names does not count.
fn uncounted<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Vec<String> {
    let missing = BAD_EVENTS.iter().filter(|words| !names.clone().any(|name| has_words(name, words)));
    missing.map(|words| words.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counters of Linux v7.3, kernel/sched/ext/internal.h, and of v6.16, kernel/sched/ext.c.
    const V7_3: &[&str] = &[
        "SCX_EV_SELECT_CPU_FALLBACK",
        "SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE",
        "SCX_EV_DISPATCH_KEEP_LAST",
        "SCX_EV_ENQ_SKIP_EXITING",
        "SCX_EV_ENQ_SKIP_MIGRATION_DISABLED",
        "SCX_EV_REENQ_IMMED",
        "SCX_EV_REENQ_REPEAT",
        "SCX_EV_REFILL_SLICE_DFL",
        "SCX_EV_SLICE_CLAMPED",
        "SCX_EV_SLICE_DENIED",
        "SCX_EV_BYPASS_DURATION",
        "SCX_EV_BYPASS_DISPATCH",
        "SCX_EV_BYPASS_ACTIVATE",
        "SCX_EV_INSERT_NOT_OWNED",
        "SCX_EV_SUB_BYPASS_DISPATCH",
    ];

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    #[test]
    fn bad_events_are_found_by_the_names_of_each_kernel() {
        let bad: Vec<_> = V7_3.iter().copied().filter(|name| is_bad_event(name)).collect();
        assert_eq!(
            bad,
            [
                "SCX_EV_SELECT_CPU_FALLBACK",
                "SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE",
                "SCX_EV_REENQ_REPEAT",
                "SCX_EV_BYPASS_ACTIVATE",
                "SCX_EV_INSERT_NOT_OWNED"
            ]
        );
        assert!(is_bad_event("SCX_EV_REENQ_LOCAL_REPEAT"), "as 7.1 and 7.2 call it");
        assert!(!is_bad_event("SCX_EV_REPEAT_REENQ") && !is_bad_event(""));
    }

    #[test]
    fn what_a_kernel_does_not_count_is_named() {
        assert!(uncounted(owned(V7_3).iter()).is_empty());
        let less: Vec<_> = V7_3.iter().copied().filter(|name| !name.contains("REENQ")).collect();
        assert_eq!(uncounted(owned(&less).iter()), ["REENQ REPEAT"]);
        assert_eq!(uncounted(Vec::new().iter()).len(), BAD_EVENTS.len());
    }
}

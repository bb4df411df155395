//! What comes out of the demo, as JSON.

use serde::Serialize;

use scx_upgrade_engine::observe::report::Report as Swapped;

use super::Options;
use super::rounds::{self, Attempt, Summary};
use super::stage::Measured;
use crate::load::{Kind, Progress};
use crate::machine::Machine;
use crate::reader::{Seen, Snapshot};
use crate::verify::{Expect, Verification};

/// All of it. Times are in nanoseconds where the name says so, delays in windows in microseconds. What a demo that
/// failed half way did not come to is 0 or null.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the CPUs are emulated in software, which makes everything 10 to 30 times slower.
    pub emulated: bool,
    /// CPUs.
    pub cpus: usize,
    /// Threads of the load that were asked for.
    pub threads: usize,
    /// Threads of the load, from `/proc`, just before the swap.
    pub live_threads: usize,
    /// Length that each window has at least, seconds.
    pub window_s: f64,
    /// What each round measured. Times of the report itself are the medians of these.
    pub rounds: Vec<Round>,

    /// All live tasks of the machine just after the swap, kernel threads included.
    pub tasks_live: usize,
    /// Of these, those that were there before the swap and whose record is as it must be.
    pub tasks_carried: usize,
    /// Those whose record is as it must be, the ones born since included: all, or the demo fails.
    pub tasks_verified: usize,
    /// Columns that both versions name.
    pub columns_shared: Vec<String>,
    /// Columns of the first version only, kept for the rollback.
    pub columns_retained: Vec<String>,
    /// Columns of the second version only.
    pub columns_new: Vec<String>,

    /// The swap's one store.
    pub commit_ns: u64,
    /// Its walk over all tasks, after it.
    pub sweep_ns: u64,
    /// All of the swap: open, plan, load and verify, prepare, commit, settle, sweep.
    pub swap_total_ns: u64,
    /// The `scx-upgrade swap` command from start to end.
    pub swap_command_ns: u64,
    /// The rollback's one store.
    pub rollback_commit_ns: u64,
    /// All of the rollback.
    pub rollback_total_ns: u64,
    /// The `scx-upgrade rollback` command from start to end.
    pub rollback_command_ns: u64,

    /// The kernel's `enable_seq` before the swap.
    pub enable_seq_before: u64,
    /// And after the rollback.
    pub enable_seq_after: u64,
    /// The kernel's `state` after the rollback.
    pub state_after: String,
    /// The most tasks seen in the fair class during swap and rollback.
    pub fair_tasks_seen: u64,
    /// The watch during the baseline.
    pub baseline_watch: Seen,
    /// The watch during the swap.
    pub swap_watch: Seen,
    /// The watch during the rollback.
    pub rollback_watch: Seen,
    /// The watch during the kernel's own way.
    pub detach_attach_watch: Seen,

    /// The kernel's own way: from detaching the first version until `disabled`, with both versions loaded and verified before.
    pub detach_ns: u64,
    /// And from attaching the second until `enabled`.
    pub attach_ns: u64,
    /// The same as an operator has it: from interrupting the first version's process until the second, started when that has
    /// ended, is attached. With load and verifier.
    pub reattach_total_ns: u64,
    /// `scx-upgrade stop`: the host's detach, for comparison.
    pub stop_ns: u64,

    /// Wake-up delay with nothing going on.
    pub baseline: Option<Summary>,
    /// With the swap.
    pub swap: Option<Summary>,
    /// With the rollback.
    pub rollback: Option<Summary>,
    /// With the kernel's own way, with load and verifier.
    pub detach_attach: Option<Summary>,
    /// All windows, in the order in which they were measured.
    pub windows: Vec<Measurement>,

    /// Comparisons of the snapshots, of the first round.
    pub verification: Option<Verifications>,
    /// The same of the other rounds.
    pub more_verifications: Vec<Verifications>,
    /// The load, window by window.
    pub load: Vec<PhaseLoad>,
    /// What `scx-upgrade run` reported.
    pub run_report: Option<Swapped>,
    /// What `scx-upgrade swap` reported.
    pub swap_report: Option<Swapped>,
    /// What `scx-upgrade rollback` reported.
    pub rollback_report: Option<Swapped>,
    /// What is wrong, in words; empty when all is well.
    pub failures: Vec<String>,
}

/// Times of one round, nanoseconds: those of [`Report`] that have the same names.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Round {
    /// See [`Report::commit_ns`], and so on.
    pub commit_ns: u64,
    /// See above.
    pub sweep_ns: u64,
    /// See above.
    pub swap_total_ns: u64,
    /// See above.
    pub swap_command_ns: u64,
    /// See above.
    pub rollback_commit_ns: u64,
    /// See above.
    pub rollback_total_ns: u64,
    /// See above.
    pub rollback_command_ns: u64,
    /// See above.
    pub detach_ns: u64,
    /// See above.
    pub attach_ns: u64,
    /// See above.
    pub reattach_total_ns: u64,
    /// See above.
    pub stop_ns: u64,
}

/// A window, with every attempt to measure it.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The window.
    pub phase: &'static str,
    /// The attempts. Which of them counts: [`rounds::counts`].
    pub attempts: Vec<Attempt>,
}

/// The comparisons.
#[derive(Clone, Debug, Serialize)]
pub struct Verifications {
    /// Before and after the swap.
    pub swap: Verification,
    /// Before and after the rollback.
    pub rollback: Verification,
    /// Before the swap and after the rollback: all columns of the first version.
    pub round_trip: Verification,
}

impl Verifications {
    /// Each with its name.
    pub fn all(&self) -> [(&'static str, &Verification); 3] {
        [("swap", &self.swap), ("rollback", &self.rollback), ("round trip", &self.round_trip)]
    }
}

/// What the load did during a window.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseLoad {
    /// The window.
    pub phase: &'static str,
    /// Kinds of threads of which none did anything: none, or the demo fails.
    pub stuck: Vec<Kind>,
    /// How long the thread that waits longest was overdue at the end.
    pub overdue_ns: u64,
    /// The counters at the end.
    pub progress: Progress,
    /// When things happened in the window.
    pub timeline: Timeline,
}

/// When things happened in a window, in milliseconds from its beginning.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// Beginning and end of reading the tasks before the action.
    pub read_before: [f64; 2],
    /// Beginning and end of the action.
    pub action: [f64; 2],
    /// Beginning and end of reading the tasks after the action.
    pub read_after: [f64; 2],
    /// The longest wake-up delays, each with when the thread was to wake; both in milliseconds.
    pub worst: Vec<[f64; 2]>,
}

impl Timeline {
    /// That of a window.
    pub fn of<T>(measured: &Measured<T>) -> Self {
        const WORST: usize = 8;
        let window = &measured.window;
        let ms = |ns: u64| (ns / 10_000) as f64 / 100.0;
        let at = |ns: u64| ms(ns.saturating_sub(window.from_ns));
        let span = |snapshot: &Snapshot| [at(snapshot.from_ns), at(snapshot.to_ns)];
        // Targets missed during one delay are part of it.
        let mut delays: Vec<_> = window.raw.iter().map(|s| (s.delay_ns, s.target_ns)).collect();
        delays.sort_unstable_by(|a, b| b.cmp(a));
        let mut worst: Vec<(u64, u64)> = Vec::new();
        for (delay, target) in delays {
            if worst.len() == WORST {
                break;
            }
            if worst.iter().all(|(delay, first)| !(*first..=first + delay).contains(&target)) {
                worst.push((delay, target));
            }
        }
        Self {
            read_before: span(&measured.before),
            action: [at(measured.acted_ns), at(measured.acted_ns + measured.action_ns)],
            read_after: span(&measured.after),
            worst: worst.into_iter().map(|(delay, target)| [at(target), ms(delay)]).collect(),
        }
    }
}

impl Report {
    /// An empty one, with what is known of the machine.
    pub(super) fn of_this_machine(options: &Options) -> anyhow::Result<Self> {
        let Machine { kernel, emulated, cpus } = Machine::this()?;
        Ok(Self {
            kernel,
            emulated,
            cpus,
            threads: options.threads,
            window_s: options.window.as_secs_f64(),
            ..Self::default()
        })
    }

    /// What the swap of a round gave.
    pub(super) fn set_swap(&mut self, round: &mut Round, command_ns: u64, report: Swapped) {
        round.commit_ns = report.timings.commit_ns;
        round.sweep_ns = report.timings.sweep_ns;
        round.swap_total_ns = report.timings.total_ns;
        round.swap_command_ns = command_ns;
        self.swap_report = Some(report);
    }

    /// What the rollback of a round gave.
    pub(super) fn set_rollback(&mut self, round: &mut Round, command_ns: u64, report: Swapped) {
        round.rollback_commit_ns = report.timings.commit_ns;
        round.rollback_total_ns = report.timings.total_ns;
        round.rollback_command_ns = command_ns;
        self.rollback_report = Some(report);
    }

    /// The kernel's state around swap and rollback of a round. What a round before found wrong stays.
    pub(super) fn set_state(&mut self, enable_seq: [u64; 2], after: String) {
        if self.enable_seq_before == self.enable_seq_after {
            [self.enable_seq_before, self.enable_seq_after] = enable_seq;
        }
        if self.state_after.is_empty() || self.state_after == "enabled" {
            self.state_after = after;
        }
    }

    /// What the comparisons of a round found.
    pub(super) fn add_verifications(&mut self, found: Verifications) {
        if self.verification.is_none() {
            self.set_verified(&found.swap);
            self.verification = Some(found);
        } else {
            self.more_verifications.push(found);
        }
    }

    /// The comparisons of all rounds.
    pub fn all_verifications(&self) -> impl Iterator<Item = &Verifications> {
        self.verification.iter().chain(&self.more_verifications)
    }

    /// Medians of all rounds, of times and of windows.
    pub(super) fn sum_up(&mut self) {
        let rounds = std::mem::take(&mut self.rounds);
        let of = |time: fn(&Round) -> u64| {
            rounds::median(rounds.iter().map(|round| time(round) as f64).collect()).unwrap_or(0.0) as u64
        };
        self.commit_ns = of(|r| r.commit_ns);
        self.sweep_ns = of(|r| r.sweep_ns);
        self.swap_total_ns = of(|r| r.swap_total_ns);
        self.swap_command_ns = of(|r| r.swap_command_ns);
        self.rollback_commit_ns = of(|r| r.rollback_commit_ns);
        self.rollback_total_ns = of(|r| r.rollback_total_ns);
        self.rollback_command_ns = of(|r| r.rollback_command_ns);
        self.detach_ns = of(|r| r.detach_ns);
        self.attach_ns = of(|r| r.attach_ns);
        self.reattach_total_ns = of(|r| r.reattach_total_ns);
        self.stop_ns = of(|r| r.stop_ns);
        self.rounds = rounds;
        let windows = std::mem::take(&mut self.windows);
        let of = |phase| {
            let of_phase = windows.iter().filter(|measured| measured.phase == phase);
            rounds::summary(of_phase.map(|measured| &measured.attempts[..]))
        };
        self.baseline = of("baseline");
        self.swap = of("swap");
        self.rollback = of("rollback");
        self.detach_attach = of("detach_attach");
        self.windows = windows;
        self.fair_tasks_seen = self.swap_watch.fair_max.max(self.rollback_watch.fair_max);
    }

    fn set_verified(&mut self, swapped: &Verification) {
        self.tasks_live = swapped.live;
        self.tasks_carried = swapped.carried;
        self.tasks_verified = swapped.verified;
    }

    pub(super) fn name_columns(&mut self, expect: &Expect, to: u8) {
        (self.columns_shared, self.columns_retained) = (Vec::new(), Vec::new());
        for column in &expect.carried {
            let is_shared = column.slots.contains(&u32::from(to));
            let names = if is_shared { &mut self.columns_shared } else { &mut self.columns_retained };
            names.push(column.name.clone());
        }
        self.columns_new = expect.defaulted.iter().map(|column| column.name.clone()).collect();
    }

    /// The slots of the first version and of the second.
    pub(super) fn slots(&self) -> (u8, u8) {
        let slot = |report: &Option<Swapped>| report.as_ref().map_or(0, |report| report.slot);
        (slot(&self.run_report), slot(&self.swap_report))
    }

    /// How much longer the swap window's p99.9 is than the baseline's.
    pub fn p999_ratio(&self) -> Option<f64> {
        Some(self.swap.as_ref()?.p999_us / self.baseline.as_ref()?.p999_us)
    }

    /// The kernel's own way in commits.
    pub fn commits_per_reattach(&self) -> f64 {
        (self.detach_ns + self.attach_ns) as f64 / self.commit_ns.max(1) as f64
    }
}

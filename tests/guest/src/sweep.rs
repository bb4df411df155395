//! What a sweep costs, beside the bare walk over all tasks and the kernel's own detach and attach: all in one run, with
//! the same threads.
//!
//! One round is: `run` a policy, walk the tasks without doing anything, swap to the same policy (nothing to convert),
//! swap to one that adds and converts five columns, roll back, `stop`. Delays are measured in rounds of their own, each with two
//! windows of equal length, one in which nothing happens and one with the swap that sweeps: whatever that swap finds has
//! been in no cache for a while. The 99.9th percentile of one window is what some ten waits make it, so those of several rounds are
//! taken together.

mod cgroups;
mod walk;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::sweep::Swept;
use scx_upgrade_engine::observe::report::{Report as Swapped, Timings};
use serde::Serialize;

use crate::demo::command::{Command, binary};
use crate::load::{self, Load, LoadSpec};
use crate::probe::{Probe, Window};
use cgroups::Cgroups;
use walk::Walk;

/// The two versions.
const POLICIES: [&str; 2] = ["sweep_1", "sweep_2"];
/// Walks of each kind per round; the one in the middle counts.
const WALKS: usize = 5;
/// Time between two points of the probe.
const PERIOD: Duration = Duration::from_millis(1);
/// How many of a window's longest waits are told.
const LONGEST: usize = 20;

/// The two windows of a round.
#[derive(Debug)]
struct Windows {
    baseline: Window,
    swap: Window,
    committed_at_ns: u64,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the load.
    pub threads: usize,
    /// Cgroups to make.
    pub cgroups: usize,
    /// How often, without the rounds in which delays are measured.
    pub rounds: usize,
    /// Rounds in which delays are measured; 0 for none.
    pub delays: usize,
    /// Length of each of the two windows of such a round.
    pub window: Duration,
    /// The load's workers, if not this program: see [`LoadSpec::program`].
    pub worker: Option<PathBuf>,
}

/// One walk: how long, and over how much.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Walked {
    /// Tasks seen.
    pub tasks: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// One round. Times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Round {
    /// The kernel's attach of the host with the first policy.
    pub attach_ns: u64,
    /// Over all tasks, doing nothing.
    pub walk_bare: Walked,
    /// The same, looking each task's record up.
    pub walk_records: Walked,
    /// The swap that converts nothing.
    pub same: Timings,
    /// The swap that adds and converts.
    pub changed: Timings,
    /// What its sweep did.
    pub changed_swept: Vec<Swept>,
    /// The rollback from it.
    pub back: Timings,
    /// What its sweep did.
    pub back_swept: Vec<Swept>,
    /// The kernel's detach.
    pub detach_ns: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its version.
    pub kernel: String,
    /// CPUs.
    pub cpus: usize,
    /// Live threads of the load, before the first round.
    pub live_threads: usize,
    /// Cgroups made.
    pub cgroups: usize,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// The delays, if they were measured.
    pub delays: Option<Delays>,
}

/// How long threads that sleep a while wait for a CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Delays {
    /// While nothing happens, in all rounds.
    pub baseline: Window,
    /// Around the swaps that sweep.
    pub swap: Window,
    /// The longest of `baseline`, the longest first; times are since the begin of its window.
    pub baseline_longest: Vec<Wait>,
    /// The longest of `swap`; times are since the commit.
    pub swap_longest: Vec<Wait>,
    /// The rounds in which that was.
    pub rounds: Vec<Round>,
}

/// One wait for a CPU.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Wait {
    /// When it began, milliseconds.
    pub at_ms: f64,
    /// How long it was, milliseconds.
    pub ms: f64,
}

fn delays(measured: Vec<(Round, Windows)>) -> Option<Delays> {
    let (rounds, windows): (_, Vec<_>) = measured.into_iter().unzip();
    let mut all = Delays {
        baseline: Window::pooled(windows.iter().map(|w| w.baseline.clone()))?,
        swap: Window::pooled(windows.iter().map(|w| w.swap.clone()))?,
        baseline_longest: windows.iter().flat_map(|w| waits(&w.baseline, w.baseline.from_ns)).collect(),
        swap_longest: windows.iter().flat_map(|w| waits(&w.swap, w.committed_at_ns)).collect(),
        rounds,
    };
    for waits in [&mut all.baseline_longest, &mut all.swap_longest] {
        waits.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        waits.truncate(LONGEST);
    }
    Some(all)
}

/// The waits of a window; `zero_ns`: the time that theirs are told from.
fn waits(window: &Window, zero_ns: u64) -> Vec<Wait> {
    let ms = |ns: f64| (ns / 1e4).round() / 1e2;
    // A wait of many periods has a sample for each, each smaller than the one before.
    let begins = |at: usize| at == 0 || window.raw[at].delay_ns > window.raw[at - 1].delay_ns;
    let samples = (0..window.raw.len()).filter(|&at| begins(at)).map(|at| window.raw[at]);
    samples
        .map(|s| Wait { at_ms: ms(s.target_ns as f64 - zero_ns as f64), ms: ms(s.delay_ns as f64) })
        .collect()
}

impl Round {
    /// The sweep of all scopes, ns.
    pub fn sweep_ns(&self) -> u64 {
        self.changed.sweep_ns
    }

    /// What the swap that converts nothing did after commit and settle, ns.
    pub fn beyond_ns(&self) -> u64 {
        self.same.sweep_ns + self.same.hand_over_ns + self.same.close_ns
    }

    /// Detach and attach, ns.
    pub fn reattach_ns(&self) -> u64 {
        self.detach_ns + self.attach_ns
    }
}

/// Do all of it.
///
/// # Errors
/// A step that cannot be done. The host is stopped and the load ended.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(options.rounds > 0, "no rounds, nothing to measure");
    let command = Command::find()?;
    let binaries = [binary(POLICIES[0])?, binary(POLICIES[1])?];
    load::raise_limits(options.threads)?;
    let cgroups = Cgroups::make(options.cgroups)?;
    let load = Load::start(LoadSpec { program: options.worker.clone(), ..LoadSpec::mixed(options.threads) })?;
    cgroups.spread(load.pids());
    let mut report = Report {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        live_threads: load.live()?,
        cgroups: cgroups.len(),
        ..Report::default()
    };
    let mut rounds = || -> Result<()> {
        let mut measured = Vec::new();
        for n in 0..options.delays {
            let (round, windows) = round(&command, &binaries, Some(options.window))
                .with_context(|| format!("round {n} of the delays"))?;
            measured.extend(windows.map(|windows| (round, windows)));
        }
        report.delays = delays(measured);
        for n in 0..options.rounds {
            let (round, _) = round(&command, &binaries, None).with_context(|| format!("round {n}"))?;
            report.rounds.push(round);
        }
        Ok(())
    };
    let done = rounds();
    if done.is_err() {
        // Whatever failed, leave the machine on its own scheduler.
        let _ = command.stop();
    }
    load.stop()?;
    drop(cgroups);
    done.map(|()| report)
}

fn round(
    command: &Command,
    binaries: &[PathBuf; 2],
    window: Option<Duration>,
) -> Result<(Round, Option<Windows>)> {
    let mut round =
        Round { attach_ns: command.launch("run", &binaries[0])?.timings.attach_ns, ..Round::default() };
    let host = Host::running(&Pins::open()?)?;
    let walk = Walk::open(&host)?;
    let median = |walk: &dyn Fn() -> Result<Walked>| -> Result<Walked> {
        let mut walks = (0..WALKS).map(|_| walk()).collect::<Result<Vec<_>>>()?;
        walks.sort_by_key(|w| w.ns);
        Ok(walks[WALKS / 2])
    };
    round.walk_bare = median(&|| walk.bare())?;
    round.walk_records = median(&|| walk.records())?;

    round.same = command.launch("swap", &binaries[0])?.timings;
    let swap = || command.launch("swap", &binaries[1]);
    let (changed, windows): (Swapped, _) = match window {
        None => (swap()?, None),
        Some(length) => {
            let mut probe = Probe::start(PERIOD)?;
            probe.window();
            std::thread::sleep(length);
            let baseline = probe.window();
            std::thread::sleep(length / 2);
            let changed = swap()?;
            std::thread::sleep(length / 2);
            let committed_at_ns = changed.committed_at_ns;
            (changed, Some(Windows { baseline, swap: probe.stop(), committed_at_ns }))
        }
    };
    (round.changed, round.changed_swept) = (changed.timings, changed.swept);
    let back = command.rollback()?;
    (round.back, round.back_swept) = (back.timings, back.swept);
    round.detach_ns = command.stop()?.detach_ns;
    Ok((round, windows))
}

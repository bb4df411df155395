//! The main job, in rounds: a scheduler is replaced in place under a load of many live threads, taken back, and then replaced the
//! kernel's own way, with the same threads. Each is measured in a window of its own; the windows are of equal length and hold
//! the same measuring at the same places. Before each stands a window `baseline`, which holds nothing else, so that whatever
//! changes slowly on the machine changes both. A window in which the machine itself stood still is measured again.
//!
//! - [`stage`] is such a window,
//! - [`rounds`] says which windows count and sums them up,
//! - [`command`] runs the real `scx-upgrade`,
//! - [`report`] is what comes out and [`judge`] what is wrong with it, [`table`] shows it to a person.

pub mod command;
pub mod judge;
pub mod report;
pub mod rounds;
pub mod stage;
pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::direct::Direct;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;

use crate::clock::now_ns;
use crate::load::{self, Load};
use crate::reader::Snapshot;
use crate::switch::published::Published;
use crate::tasks::sched_ext;
use crate::verify::rules::Rules;
use crate::verify::{Expect, verify};
use command::Command;
use report::{Measurement, PhaseLoad, Report, Round, Timeline, Verifications};
use rounds::Attempt;
use stage::{Measured, Stage};

/// The first version and its successor.
const POLICIES: [&str; 2] = ["scx_fair_v1", "scx_fair_v2"];
/// Time for things to calm down after a scheduler was attached or threads were put up.
const CALM: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the load.
    pub threads: usize,
    /// Length of each window.
    pub window: Duration,
    /// How often all is measured.
    pub rounds: usize,
    /// How often a window is measured at most, where the machine stands still in it.
    pub attempts: usize,
    /// Where to draw the delays around one more swap, if anywhere.
    pub picture: Option<PathBuf>,
}

/// Do all of it. What came out may be wrong: see [`judge::failures`], which fills [`Report::failures`].
///
/// # Errors
/// A step that cannot be done at all. The host is stopped and the load ended.
pub fn run(options: &Options) -> Result<Report> {
    let command = Command::find()?;
    let binaries = [command::binary(POLICIES[0])?, command::binary(POLICIES[1])?];
    let load = load::put_up(options.threads, say)?;
    let result = job(options, &command, &binaries, &load);
    if result.is_err() {
        // Whatever failed, leave the machine on its own scheduler.
        let _ = command.stop();
    }
    say("ending the load");
    load.stop()?;
    let mut report = result?;
    report.failures = judge::failures(&report);
    Ok(report)
}

fn job(options: &Options, command: &Command, binaries: &[PathBuf; 2], load: &Load) -> Result<Report> {
    let mut report = Report::of_this_machine(options)?;
    for number in 0..options.rounds {
        say(&format!("round {} of {}", number + 1, options.rounds));
        let mut round = Round::default();
        say(&format!("scx-upgrade run {}", POLICIES[0]));
        report.run_report = Some(command.launch("run", &binaries[0])?);
        let host = Host::running(&Pins::open()?)?;
        let mut measure =
            Measure { stage: Stage::open(&host, options.window)?, load, report: &mut report, options };
        in_place(command, binaries, &mut measure, &mut round)?;
        say("scx-upgrade stop");
        round.stop_ns = command.stop()?.detach_ns;
        if let Some(file) = options.picture.as_ref().filter(|_| number == 0) {
            // Once more and from the beginning: what counts for a picture would count in the swap that is measured.
            say("scx-upgrade run, and swap --picture");
            command.launch("run", &binaries[0])?;
            std::thread::sleep(CALM);
            command.draw(&binaries[1], file)?;
            command.stop()?;
        }
        kernels_own_way(binaries, &mut measure, &mut round)?;
        report.rounds.push(round);
    }
    report.sum_up();
    Ok(report)
}

/// Averages and turns of the first tasks reach back to before the clock of the run was read: attaching takes seconds.
const BEFORE_RUN_NS: u64 = 10_000_000_000;

/// Swap and rollback, of the host that was just started.
fn in_place(command: &Command, binaries: &[PathBuf; 2], on: &mut Measure, round: &mut Round) -> Result<()> {
    let started = now_ns();
    let pins = Pins::open()?;
    let enable_seq_before = sched_ext::enable_seq()?;
    std::thread::sleep(CALM);
    let expect = || -> Result<(Host, u32, Rules)> {
        let host = Host::running(&pins)?;
        let epoch = host.data.active().epoch;
        Ok((host, epoch, Rules::scx_fair(now_ns() - started + BEFORE_RUN_NS)))
    };

    on.rest()?;
    say(&format!("scx-upgrade swap {}", POLICIES[1]));
    on.report.live_threads = on.load.live()?;
    let swap = on.phase("swap", || command.launch("swap", &binaries[1]), |_| command.rollback().map(drop))?;
    on.report.set_swap(round, swap.action_ns, swap.outcome);
    let (host, epoch, rules) = expect()?;
    let slots = on.report.slots();
    let expected = Expect::of_swap(&host.registry.layout, slots.0, slots.1, epoch, rules);
    on.report.name_columns(&expected, slots.1);
    let swapped = verify(&swap.before, &swap.after, &expected);

    on.rest()?;
    say("scx-upgrade rollback");
    let again = |_| command.launch("swap", &binaries[1]).map(drop);
    let rollback = on.phase("rollback", || command.rollback(), again)?;
    on.report.set_rollback(round, rollback.action_ns, rollback.outcome);
    let (host, epoch, rules) = expect()?;
    let expected = Expect::of_rollback(&host.registry.layout, slots.1, slots.0, epoch, rules);
    let rolled_back = verify(&rollback.before, &rollback.after, &expected);
    // There and back: what the first version left, it finds, also what the second does not name.
    let mut first = expected;
    first.carried.retain(|column| column.slots.contains(&u32::from(slots.0)));
    let round_trip = verify(&swap.before, &rollback.after, &first);
    on.report.add_verifications(Verifications { swap: swapped, rollback: rolled_back, round_trip });
    on.report.set_state([enable_seq_before, sched_ext::enable_seq()?], sched_ext::state()?);
    Ok(())
}

/// Detach the first version and attach the second: by itself, both loaded and verified beforehand, and as an operator has it.
fn kernels_own_way(binaries: &[PathBuf; 2], on: &mut Measure, round: &mut Round) -> Result<()> {
    let direct = |binary| -> Result<Direct> { Ok(Direct::load(&Policy::from_binary(binary)?)?) };
    let (mut first, mut second) = (direct(&binaries[0])?, direct(&binaries[1])?);
    say("the kernel's own way: attach the first version, detach it and attach the second");
    first.attach()?;
    round.detach_ns = first.detach()?;
    round.attach_ns = second.attach()?;
    second.detach()?;
    // Their programs and maps are freed by the time that the next is measured.
    drop((first, second));

    say("as an operator has it: start the first version by itself");
    let start = |binary: &PathBuf| Published::start_with(binary, &["--direct"]);
    let running = std::cell::RefCell::new(Some(start(&binaries[0])?));
    let change = |to: &PathBuf| -> Result<u64> {
        let begun = now_ns();
        running.take().context("no scheduler was started")?.interrupt()?;
        *running.borrow_mut() = Some(start(to)?);
        Ok(now_ns() - begun)
    };
    std::thread::sleep(CALM);
    on.rest()?;
    say("  interrupt it, wait for its end, start the second");
    let replaced = on.phase("detach_attach", || change(&binaries[1]), |_| change(&binaries[0]).map(drop))?;
    round.reattach_total_ns = replaced.outcome;
    running.take().context("no scheduler was started")?.interrupt()
}

/// What windows are measured with, and where their figures go.
struct Measure<'a> {
    stage: Stage,
    load: &'a Load,
    report: &'a mut Report,
    options: &'a Options,
}

impl Measure<'_> {
    /// A window in which nothing happens.
    fn rest(&mut self) -> Result<()> {
        say("  nothing happens");
        let rest = self.options.window / 8;
        let wait = || {
            std::thread::sleep(rest);
            Ok(())
        };
        self.phase("baseline", wait, |()| Ok(())).map(drop)
    }

    /// A window in which `action` happens. Where the machine stood still, `undo` takes the action back and it is measured again.
    /// Gives the last attempt; which one counts for delays is said by [`rounds::counts`].
    fn phase<T>(
        &mut self,
        phase: &'static str,
        mut action: impl FnMut() -> Result<T>,
        mut undo: impl FnMut(T) -> Result<()>,
    ) -> Result<Measured<T>> {
        let mut attempts = Vec::new();
        loop {
            let measured = self.attempt(phase, &mut action)?;
            attempts.push(Attempt { window: measured.window.clone(), control_us: measured.control_us });
            if !rounds::again(&attempts, self.options.attempts) {
                self.report.windows.push(Measurement { phase, attempts });
                return Ok(measured);
            }
            say(&format!(
                "  the machine stood still for {:.0} ms: the window is measured again",
                measured.control_us / 1e3
            ));
            undo(measured.outcome)?;
            std::thread::sleep(CALM);
        }
    }

    /// One attempt, with what the load did in it.
    fn attempt<T>(&mut self, phase: &'static str, action: impl FnOnce() -> Result<T>) -> Result<Measured<T>> {
        let earlier = self.load.progress();
        let measured = self.stage.measure(action).with_context(|| format!("the window `{phase}`"))?;
        let progress = self.load.progress();
        let stuck = progress.stuck_since(&earlier);
        let (overdue_ns, timeline) = (progress.overdue_ns(), Timeline::of(&measured));
        self.report.load.push(PhaseLoad { phase, stuck, overdue_ns, progress, timeline });
        let watch = match phase {
            "swap" => &mut self.report.swap_watch,
            "rollback" => &mut self.report.rollback_watch,
            "detach_attach" => &mut self.report.detach_attach_watch,
            _ => &mut self.report.baseline_watch,
        };
        watch.merge(measured.seen.clone());
        let w = &measured.window;
        say(&format!(
            "  wake-up delay in us: p99 {:.0}, p99.9 {:.0}, max {:.0}; control threads: max {:.0}",
            w.p99_us, w.p999_us, w.max_us, measured.control_us
        ));
        let (before, after) = (&measured.before, &measured.after);
        let took = |snapshot: &Snapshot| (snapshot.to_ns - snapshot.from_ns) / 1_000_000;
        say(&format!("  {} tasks read in {} and {} ms", after.entries.len(), took(before), took(after)));
        Ok(measured)
    }
}

/// One line on what goes on.
fn say(line: &str) {
    eprintln!("demo: {line}");
}

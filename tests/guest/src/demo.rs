//! The main job in one run: a scheduler is replaced in place under a load of many live threads, taken back, and then
//! replaced the kernel's own way, with the same threads. Each is measured in a window of its own; the windows are of
//! equal length and hold the same measuring at the same places, and the first, `baseline`, holds nothing else.
//!
//! - [`stage`] is such a window,
//! - [`command`] runs the real `scx-upgrade`,
//! - [`report`] is what comes out and [`judge`] what is wrong with it, [`table`] shows it to a person.

pub mod command;
pub mod judge;
pub mod report;
pub mod stage;
pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::direct::Direct;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

use crate::clock::now_ns;
use crate::load::{self, Load};
use crate::reader::Snapshot;
use crate::tasks::sched_ext;
use crate::verify::rules::Rules;
use crate::verify::{Expect, verify};
use command::Command;
use report::{PhaseLoad, Report, Timeline, Verifications};
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

    say(&format!("scx-upgrade run {}", POLICIES[0]));
    report.run_report = Some(command.launch("run", &binaries[0])?);
    let started = now_ns();
    let pins = Pins::open()?;
    let host = Host::running(&pins)?;
    let mut stage = Stage::open(&host, options.window)?;
    report.enable_seq_before = sched_ext::enable_seq()?;
    std::thread::sleep(CALM);

    say("baseline: nothing happens");
    let rest = options.window / 8;
    let baseline = measure(&mut stage, load, &mut report, "baseline", || {
        std::thread::sleep(rest);
        Ok(())
    })?;
    report.baseline = Some(baseline.window);
    report.baseline_watch = baseline.seen;

    say(&format!("scx-upgrade swap {}", POLICIES[1]));
    report.live_threads = load.live()?;
    let swap = measure(&mut stage, load, &mut report, "swap", || command.launch("swap", &binaries[1]))?;
    report.set_swap(swap.window, swap.seen, swap.action_ns, swap.outcome);
    let host = Host::running(&pins)?;
    let slots = report.slots();
    let expect =
        |host: &Host| (host.data.active().epoch, Rules::scx_fair(now_ns() - started + BEFORE_RUN_NS));
    let (epoch, rules) = expect(&host);
    let expected = Expect::of_swap(&host.registry.layout, slots.0, slots.1, epoch, rules);
    report.name_columns(&expected, slots.1);
    let swapped = verify(&swap.before, &swap.after, &expected);
    report.set_verified(&swapped);

    say("scx-upgrade rollback");
    let rollback = measure(&mut stage, load, &mut report, "rollback", || command.rollback())?;
    report.set_rollback(rollback.window, rollback.seen, rollback.action_ns, rollback.outcome);
    let host = Host::running(&pins)?;
    let (epoch, rules) = expect(&host);
    let expected = Expect::of_rollback(&host.registry.layout, slots.1, slots.0, epoch, rules);
    let rolled_back = verify(&rollback.before, &rollback.after, &expected);
    // There and back: what the first version left, it finds, also what the second does not name.
    let mut first = expected;
    first.carried.retain(|column| column.slots.contains(&u32::from(slots.0)));
    let round_trip = verify(&swap.before, &rollback.after, &first);
    report.verification = Some(Verifications { swap: swapped, rollback: rolled_back, round_trip });
    report.enable_seq_after = sched_ext::enable_seq()?;
    report.state_after = sched_ext::state()?;

    if let Some(file) = &options.picture {
        // Once more, since what it counts would count in the swap that is measured.
        say("scx-upgrade swap --picture");
        command.draw(&binaries[1], file)?;
    }

    say("scx-upgrade stop");
    report.stop_ns = command.stop()?.detach_ns;
    kernels_own_way(binaries, load, &mut stage, &mut report)?;
    Ok(report)
}

/// Averages and turns of the first tasks reach back to before the clock of the run was read: attaching takes seconds.
const BEFORE_RUN_NS: u64 = 10_000_000_000;

/// Detach the first version and attach the second, both loaded and verified beforehand.
fn kernels_own_way(
    binaries: &[PathBuf; 2],
    load: &Load,
    stage: &mut Stage,
    report: &mut Report,
) -> Result<()> {
    let direct = |binary| -> Result<Direct> { Ok(Direct::load(&Policy::from_binary(binary)?)?) };
    let (mut first, mut second) = (direct(&binaries[0])?, direct(&binaries[1])?);
    say("the kernel's own way: attach the first version directly");
    first.attach()?;
    std::thread::sleep(CALM);
    say("  detach it and attach the second");
    let replaced = measure(stage, load, report, "detach_attach", || {
        let detach_ns = first.detach()?;
        Ok((detach_ns, second.attach()?))
    })?;
    (report.detach_ns, report.attach_ns) = replaced.outcome;
    report.detach_attach = Some(replaced.window);
    report.detach_attach_watch = replaced.seen;
    say("  detach");
    second.detach()?;
    Ok(())
}

/// A window, with what the load did in it.
fn measure<T>(
    stage: &mut Stage,
    load: &Load,
    report: &mut Report,
    phase: &'static str,
    action: impl FnOnce() -> Result<T>,
) -> Result<Measured<T>> {
    let earlier = load.progress();
    let measured = stage.measure(action).with_context(|| format!("the window `{phase}`"))?;
    let progress = load.progress();
    let stuck = progress.stuck_since(&earlier);
    let (overdue_ns, timeline) = (progress.overdue_ns(), Timeline::of(&measured));
    report.load.push(PhaseLoad { phase, stuck, overdue_ns, progress, timeline });
    let w = &measured.window;
    say(&format!("  wake-up delay in us: p99 {:.0}, p99.9 {:.0}, max {:.0}", w.p99_us, w.p999_us, w.max_us));
    let (before, after) = (&measured.before, &measured.after);
    let took = |snapshot: &Snapshot| (snapshot.to_ns - snapshot.from_ns) / 1_000_000;
    say(&format!("  {} tasks read in {} and {} ms", after.entries.len(), took(before), took(after)));
    Ok(measured)
}

/// One line on what goes on.
fn say(line: &str) {
    eprintln!("demo: {line}");
}

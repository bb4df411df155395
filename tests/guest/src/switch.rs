//! From one scheduler to another, in the two ways that there are on a stock kernel, under the same load:
//!
//! - as scx_loader does it, with two schedulers as they are published: interrupt the process of the old one, wait until
//!   it has ended, start the new one. Each loads its scheduler itself and attaches it directly;
//! - `scx-upgrade swap`, from one policy to another.
//!
//! Each has two windows of the same length, with the same instruments: one in which nothing happens and one with the
//! switch.
//!
//! - [`published`] is a published scheduler's process,
//! - [`state_watch`] says for how long the kernel had no scheduler,
//! - [`window`] is a window.

pub mod published;
pub mod state_watch;
pub mod window;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::clock::now_ns;
use crate::demo::command::{Command, binary};
use crate::load;
use crate::machine::Machine;
use crate::probe;
use published::Published;
use window::{Seen, Stage};

/// Time for things to calm down after a scheduler was attached.
const CALM: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the load.
    pub threads: usize,
    /// Length of each window.
    pub window: Duration,
    /// The published schedulers, the old one and the new one.
    pub published: [PathBuf; 2],
    /// The policies, likewise.
    pub policies: [String; 2],
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Threads of the load.
    pub threads: usize,
    /// Length that each window has at least, seconds.
    pub window_s: f64,
    /// As scx_loader does it.
    pub loader: Way,
    /// With `scx-upgrade swap`.
    pub swap: Way,
}

/// One of the ways.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// The scheduler before.
    pub from: String,
    /// And after.
    pub to: String,
    /// Wake-up delay with nothing going on, under the old one.
    pub baseline: probe::Window,
    /// And with the switch.
    pub window: probe::Window,
    /// The switch from begin to end, nanoseconds: from the signal, or the start of the command, until the new one
    /// runs.
    pub total_ns: u64,
    /// Of it, until the process of the old one had ended. 0 in a swap, where none has to.
    pub stop_ns: u64,
    /// What was seen during the switch.
    pub seen: Seen,
}

/// Do all of it.
///
/// # Errors
/// A step that cannot be done. Whatever scheduler was started is stopped and the load ended.
pub fn run(options: &Options) -> Result<Report> {
    let command = Command::find()?;
    let policies = [binary(&options.policies[0])?, binary(&options.policies[1])?];
    let load = load::put_up(options.threads, say)?;
    let mut stage = Stage::open(options.window)?;
    let loader = with_published(&options.published, &mut stage);
    let swap = loader.and_then(|loader| Ok((loader, with_swap(&command, &policies, &mut stage)?)));
    if swap.is_err() {
        // Whatever failed, leave the machine on its own scheduler.
        let _ = command.stop();
    }
    say("ending the load");
    load.stop()?;
    let (loader, swap) = swap?;
    Ok(Report {
        machine: Machine::this()?,
        threads: options.threads,
        window_s: options.window.as_secs_f64(),
        loader,
        swap,
    })
}

/// As scx_loader does it.
fn with_published(programs: &[PathBuf; 2], stage: &mut Stage) -> Result<Way> {
    let [from, to] = [name(&programs[0]), name(&programs[1])];
    say(&format!("start {from}"));
    let old = Published::start(&programs[0])?;
    std::thread::sleep(CALM);
    let baseline = rest(stage)?;
    say(&format!("interrupt {from}, wait, start {to}"));
    let switch = stage.measure(|| {
        let begun = now_ns();
        old.interrupt()?;
        let stop_ns = now_ns() - begun;
        let new = Published::start(&programs[1])?;
        Ok((new, stop_ns, now_ns() - begun))
    })?;
    let (new, stop_ns, total_ns) = switch.outcome;
    tell(&switch.window, &switch.seen, total_ns);
    new.interrupt()?;
    Ok(Way { from, to, baseline, window: switch.window, total_ns, stop_ns, seen: switch.seen })
}

/// With `scx-upgrade swap`.
fn with_swap(command: &Command, policies: &[PathBuf; 2], stage: &mut Stage) -> Result<Way> {
    let [from, to] = [name(&policies[0]), name(&policies[1])];
    say(&format!("scx-upgrade run {from}"));
    command.launch("run", &policies[0])?;
    std::thread::sleep(CALM);
    let baseline = rest(stage)?;
    say(&format!("scx-upgrade swap {to}"));
    let switch = stage.measure(|| {
        let begun = now_ns();
        command.launch("swap", &policies[1])?;
        Ok(now_ns() - begun)
    })?;
    tell(&switch.window, &switch.seen, switch.outcome);
    command.stop()?;
    let total_ns = switch.outcome;
    Ok(Way { from, to, baseline, window: switch.window, total_ns, stop_ns: 0, seen: switch.seen })
}

/// A window in which nothing happens.
fn rest(stage: &mut Stage) -> Result<probe::Window> {
    say("  nothing happens");
    let measured = stage.measure(|| Ok(())).context("the window in which nothing happens")?;
    tell(&measured.window, &measured.seen, 0);
    Ok(measured.window)
}

fn name(program: &Path) -> String {
    program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn tell(window: &probe::Window, seen: &Seen, total_ns: u64) {
    let ms = |ns: u64| ns as f64 / 1e6;
    say(&format!(
        "  took {:.1} ms, no scheduler for {:.1} ms, {} tasks in the fair class; delay p99.9 {:.1} ms, max {:.1} ms",
        ms(total_ns),
        ms(seen.gap_ns),
        seen.fair_max,
        window.p999_us / 1e3,
        window.max_us / 1e3
    ));
}

/// One line on what goes on.
fn say(line: &str) {
    eprintln!("switch: {line}");
}

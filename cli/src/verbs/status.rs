//! `scx-upgrade status`: what runs, and what a rollback would go to.

use std::fmt::Write as _;

use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::status;
use scx_upgrade_engine::observe::status::Status;

use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;
use crate::watch;

/// Width of the labels.
const LABEL: usize = 12;

pub fn status(pins: &Pins, args: &StatusArgs, out: Output) -> Result<(), Failure> {
    let status = match args.watch {
        true => watch::watch(pins, args, out)?,
        false => status::status(pins)?,
    };
    // As `systemctl status`: the answer is printed, and the exit code says that nothing runs.
    match failure(&status) {
        // Each look was a document of its own.
        Some(failure) if args.watch => Err(Failure { document: Some(serde_json::Value::Null), ..failure }),
        Some(failure) => Err(out.show_failed(&status, |out| text(out, &status), failure)),
        None if args.watch => Ok(()),
        None => {
            out.show(&status, |out| text(out, &status));
            Ok(())
        }
    }
}

/// Why the exit code is not 0, if so.
fn failure(status: &Status) -> Option<Failure> {
    if let Some(why) = &status.hidden {
        return Some(Failure::new(Exit::Failed, why));
    }
    if let Some(why) = &status.detached {
        return Some(Failure::new(Exit::DefaultScheduler, why));
    }
    match (&status.ejected, status.running) {
        (Some(reason), _) => {
            Some(Failure::new(Exit::DefaultScheduler, format!("the kernel took the host off: {reason}")))
        }
        (None, false) => Some(Failure::new(Exit::NothingRunning, "no policy is running under scx-upgrade")),
        (None, true) => None,
    }
}

fn text(out: &mut String, status: &Status) {
    line!(out, "kernel      {} {}", status.state, status.ops);
    if !status.running {
        return;
    }
    line!(out, "generation  {}", status.generation);
    if let Some(number) = status.pending {
        line!(out, "cut off     the swap to generation {number}; the next command finishes or undoes it");
    }
    if status.held {
        line!(out, "held        no policy runs, tasks are served in the order in which they come");
    }
    for slot in &status.slots {
        let role = match (slot.active, slot.rollback) {
            (true, _) => "running",
            (_, true) => "rollback goes here",
            _ => "loaded",
        };
        let process = if slot.alive { format!("process {}", slot.pid) } else { "no process".to_string() };
        line!(out, "slot {}      {} {}  {role}, {process}", slot.slot, slot.policy, slot.version);
    }
    for queue in &status.queues {
        let members = if queue.members == 1 { String::new() } else { format!(" x {}", queue.members) };
        line!(
            out,
            "queue       {} ({}{members}, {:#x}), {} waiting, named by slots {:?}",
            queue.name,
            queue.kind,
            queue.id,
            queue.queued,
            queue.slots
        );
    }
    if !status.spared.is_empty() {
        let _ = write!(out, "lean        ");
        output::wrapped(out, LABEL, &format!("without {}", status.spared.join(", ")));
    }
    line!(out, "free        {} bytes of each task record", status.task_bytes_free);
}

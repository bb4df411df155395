//! `scx-upgrade status`: what runs, and what a rollback would go to.

use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::status;
use scx_upgrade_sdk::status::Status;

use crate::failure::Failure;
use crate::output;

pub fn status(pins: &Pins, json: bool) -> Result<(), Failure> {
    let status = status::status(pins)?;
    if json {
        output::json(&status);
    } else {
        text(&status);
    }
    // As `systemctl status`: the answer is printed, and the exit code says that nothing runs.
    if let Some(why) = &status.detached {
        return Err(Failure::new(5, why));
    }
    match (&status.ejected, status.running) {
        (Some(reason), _) => Err(Failure::new(5, format!("the kernel took the host off: {reason}"))),
        (None, false) => Err(Failure::new(3, "no policy is running under scx-upgrade")),
        (None, true) => Ok(()),
    }
}

fn text(status: &Status) {
    println!("kernel      {} {}", status.state, status.ops);
    if !status.running {
        return;
    }
    println!("generation  {}", status.generation);
    if let Some(number) = status.pending {
        println!("cut off     the swap to generation {number}; the next command finishes or undoes it");
    }
    if status.held {
        println!("held        no policy runs, tasks are served in the order in which they come");
    }
    for slot in &status.slots {
        let role = match (slot.active, slot.rollback) {
            (true, _) => "running",
            (_, true) => "rollback goes here",
            _ => "loaded",
        };
        let process = if slot.alive { format!("process {}", slot.pid) } else { "no process".to_string() };
        println!("slot {}      {} {}  {role}, {process}", slot.slot, slot.policy, slot.version);
    }
    for queue in &status.queues {
        let members = if queue.members == 1 { String::new() } else { format!(" x {}", queue.members) };
        println!(
            "queue       {} ({}{members}, {:#x}), {} waiting, named by slots {:?}",
            queue.name, queue.kind, queue.id, queue.queued, queue.slots
        );
    }
    println!("free        {} bytes of each task record", status.task_bytes_free);
}

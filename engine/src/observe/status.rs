//! What runs, read from the kernel and the pins; it changes nothing and needs no lock.

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Scope;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::pins::Pins;
use crate::host::queues::Count;
use crate::host::registry::Generation;
use crate::kernel::sysfs;
use crate::os::identity;
use crate::os::identity::Binary;

/// A slot and the policy in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Index.
    pub slot: u8,
    /// Policy's name.
    pub policy: String,
    /// Policy's version.
    pub version: String,
    /// Does it run?
    pub active: bool,
    /// Would a rollback go to it?
    pub rollback: bool,
    /// The process of its frontend; 0 if none was started.
    pub pid: u32,
    /// Whether that process is alive.
    pub alive: bool,
    /// Names of its columns, as `scope.column: type`.
    pub columns: Vec<String>,
    /// The latest generation in which it was committed, which is what a rollback calls it by.
    #[serde(default)]
    pub generation: u32,
    /// When that was, in seconds since 1970.
    #[serde(default)]
    pub since: u64,
    /// Its process's arguments, the program's name first.
    #[serde(default)]
    pub args: Vec<String>,
    /// The binary that it came from, if that could be read.
    #[serde(default)]
    pub binary: Option<Binary>,
}

/// A DSQ, or a family of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Name.
    pub name: String,
    /// Order and span, as a policy's tag has them: `vtime,per-cpu`.
    pub kind: String,
    /// The kernel's id; of a family, that of its first member.
    pub id: u64,
    /// How many members stand: 1 of a single queue.
    pub members: u64,
    /// Tasks that wait there.
    pub queued: u64,
    /// Slots that name it.
    pub slots: Vec<u32>,
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The kernel's `state`.
    pub state: String,
    /// The kernel's name of what runs, empty if nothing does.
    pub ops: String,
    /// The kernel's `enable_seq`.
    pub enable_seq: u64,
    /// Is it the host?
    pub running: bool,
    /// The running generation.
    pub generation: u32,
    /// The latest plan that records must have seen.
    pub epoch: u32,
    /// Why no scheduler is attached although its state is kept, if so.
    pub detached: Option<String>,
    /// Where a host runs whose pins cannot be seen here: what runs, and why they are hidden.
    #[serde(default)]
    pub hidden: Option<String>,
    /// Was a swap cut off? The next command that changes something finishes or undoes it.
    pub pending: Option<u32>,
    /// Why the kernel took the host off, if it did.
    pub ejected: Option<String>,
    /// Was a rollback cut off while no policy ran? Then the host serves tasks as they come.
    #[serde(default)]
    pub held: bool,
    /// What is loaded.
    pub slots: Vec<SlotStatus>,
    /// The DSQs.
    pub queues: Vec<QueueStatus>,
    /// The latest commits, oldest first.
    pub generations: Vec<Generation>,
    /// Bytes of a task record that no column takes.
    pub task_bytes_free: u32,
    /// Names of the ops and flags that a lean host does without: see [`crate::host::attach_config`].
    #[serde(default)]
    pub spared: Vec<String>,
}

/// Read it.
///
/// # Errors
/// The pins or the registry cannot be read. That nothing runs is not an error here.
pub fn status(pins: &Pins) -> Result<Status> {
    let mut status = Status {
        state: sysfs::state(),
        ops: sysfs::ops(),
        enable_seq: sysfs::enable_seq(),
        running: false,
        generation: 0,
        epoch: 0,
        detached: None,
        hidden: None,
        pending: None,
        held: false,
        ejected: None,
        slots: Vec::new(),
        queues: Vec::new(),
        generations: Vec::new(),
        task_bytes_free: 0,
        spared: Vec::new(),
    };
    let host = match Host::running(pins) {
        Ok(host) => host,
        Err(Error::Ejected { reason }) => {
            status.ejected = Some(reason);
            return Ok(status);
        }
        Err(e @ (Error::Detached { .. } | Error::HalfReplaced)) => {
            status.detached = Some(e.to_string());
            return Ok(status);
        }
        Err(e @ Error::HiddenPins { .. }) => {
            status.hidden = Some(e.to_string());
            return Ok(status);
        }
        Err(Error::NothingRunning | Error::OtherScheduler { .. }) => return Ok(status),
        Err(other) => return Err(other),
    };
    let active = host.data.active();
    let back = host.registry.rollback_target(active.slot).map(|g| g.slot);
    status.running = true;
    status.generation = active.generation;
    status.epoch = active.epoch;
    status.pending = host.registry.pending.as_ref().map(|p| p.generation.number);
    status.held = host.registry.slot(active.slot).is_none();
    for slot in 0..crate::host::abi::NR_SLOTS as u8 {
        let Some(info) = host.registry.slot(slot) else { continue };
        let columns = info.schema.scopes.iter().flat_map(|(scope, columns)| {
            columns.iter().map(move |c| format!("{scope}.{}: {}", c.name, c.ty)).collect::<Vec<_>>()
        });
        let committed = |g: &&Generation| g.slot == slot && g.load == info.load;
        let latest = host.registry.generations.iter().rev().find(committed);
        status.slots.push(SlotStatus {
            generation: latest.map_or(0, |g| g.number),
            since: latest.map_or(0, |g| g.unix_time),
            args: info.args.clone(),
            binary: info.binary.clone(),
            slot,
            policy: info.policy.clone(),
            version: info.version.clone(),
            active: slot == active.slot,
            rollback: Some(slot) == back,
            pid: info.pid,
            alive: identity::is_alive(info.pid),
            columns: columns.collect(),
        });
    }
    for queue in &host.registry.queues {
        let Count { existing, queued } = host.count_queue(queue)?;
        status.queues.push(QueueStatus {
            name: queue.name.clone(),
            kind: queue.queue().to_string(),
            id: queue.id,
            members: existing,
            queued,
            slots: queue.slots.iter().copied().collect(),
        });
    }
    status.task_bytes_free = host.registry.layout.free_bytes(Scope::Task);
    status.generations = host.registry.generations.clone();
    status.spared = host.registry.terms.spared.iter().cloned().collect();
    Ok(status)
}

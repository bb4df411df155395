//! All that outlives a command in the kernel in memory, and what no command may ever do to it: see [`World::look`].

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::Active;
use crate::host::abi::NR_SLOTS;
use crate::host::attach_config::AttachConfig;
use crate::host::memory::Mapped;
use crate::host::registry::Registry;

/// `enum scx_exit_kind` (Linux v7.3 kernel/sched/ext/internal.h): somebody detached it, and an error of its own.
pub(super) const EXIT_UNREG: u64 = 64;
pub(super) const EXIT_ERROR: u64 = 1024;

/// What becomes of a command at one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails and has no effect.
    Fails,
    /// The command is killed before the call.
    KilledBefore,
    /// The command is killed after it.
    KilledAfter,
    /// The kernel ejects the scheduler before the call.
    Ejects,
    /// A signal comes before the call.
    Signal,
}

/// What a slot of the program arrays has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub load: u64,
    pub queues: Vec<u64>,
}

/// The scheduler that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheduler {
    Host { terms: AttachConfig },
    Foreign,
}

/// All that outlives a command.
#[derive(Debug, Default)]
pub(super) struct World {
    pub enabled: Option<Scheduler>,
    pub enable_seq: u64,
    /// Is the pinned link there, and does it attach what is enabled?
    pub link_pinned: bool,
    /// Has this command a descriptor of the link that attaches what is enabled?
    pub link_held: bool,
    /// Is the scheduler of someone else that was put back held by a pin?
    pub foreign_pinned: bool,
    /// Is everything of the host pinned, part of it, or nothing?
    pub pinned: Pinned,
    pub registry: Option<Registry>,
    pub memory: Option<Mapped>,
    pub identity: u32,
    pub slots: [Option<Programs>; NR_SLOTS],
    /// Slots that are being filled or emptied: a command was killed in the middle.
    pub half_filled: BTreeSet<u8>,
    /// Queues that exist, and how many tasks wait on each.
    pub queues: BTreeMap<u64, u64>,
    /// Slots whose ops may be in flight.
    pub in_flight: BTreeSet<u8>,
    pub last_seen: Option<Active>,
    /// The epoch that the last sweep of all scopes was of.
    pub swept_epoch: u32,
    /// Calls of this command.
    pub calls: u32,
    pub fault: Option<(u32, Fault)>,
    pub dead: bool,
    /// What no command may cause, and one did.
    pub wrong: Vec<String>,
}

/// How much of the host is pinned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    #[default]
    Nothing,
    Part,
    All,
}

impl World {
    pub fn active(&self) -> Option<Active> {
        self.memory.as_ref().map(Mapped::active)
    }

    /// The generation that is complete.
    pub fn closed(&self) -> Option<u32> {
        self.memory.as_ref().map(Mapped::closed)
    }

    pub fn host_enabled(&self) -> bool {
        matches!(self.enabled, Some(Scheduler::Host { .. }))
    }

    pub fn accuse(&mut self, what: String) {
        self.wrong.push(format!("call {}: {what}", self.calls));
    }

    /// A CPU looks at the control word, and a task comes: ops of the policy that it named before may still be in flight.
    pub fn look(&mut self) {
        let Some(active) = self.active().filter(|_| self.host_enabled()) else { return };
        if let Some(before) = self.last_seen.replace(active)
            && before.slot != active.slot
        {
            self.in_flight.insert(before.slot);
        }
        let slot = usize::from(active.slot);
        if self.half_filled.contains(&active.slot) {
            self.accuse(format!("slot {slot} runs half filled"));
        }
        let Some(programs) = self.slots.get(slot).cloned() else {
            return self.accuse(format!("there is no slot {slot}"));
        };
        let holds = self.registry.as_ref().and_then(|registry| registry.pending.as_ref()?.hold);
        if programs.is_none() && holds != Some(active.slot) {
            self.accuse(format!("slot {slot} runs and is empty"));
        }
        for queue in programs.iter().flat_map(|programs| &programs.queues) {
            match self.queues.get_mut(queue) {
                Some(tasks) => *tasks = 1,
                None => self.accuse(format!("the running policy's queue {queue:#x} is not there: ejected")),
            }
        }
    }

    pub fn enable(&mut self, scheduler: Scheduler) -> Result<()> {
        if self.enabled.is_some() {
            let source = io::Error::from_raw_os_error(libc::EBUSY);
            return Err(source).trying("cannot attach");
        }
        self.enable_seq += 1;
        if let (Scheduler::Host { .. }, Some(memory)) = (&scheduler, &self.memory) {
            self.queues = memory.boot_queues().into_iter().map(|queue| (queue.base, 0)).collect();
        }
        self.enabled = Some(scheduler);
        self.in_flight.clear();
        self.last_seen = None;
        Ok(())
    }

    /// The kernel destroys all queues, and no op is in flight any more.
    pub fn disable(&mut self, kind: u64) {
        if self.host_enabled()
            && let Some(memory) = &self.memory
        {
            memory.set_exit(kind);
            self.queues.clear();
        }
        self.enabled = None;
        self.link_held = false;
        self.in_flight.clear();
        self.last_seen = None;
    }

    pub fn eject(&mut self) {
        if self.host_enabled() {
            self.disable(EXIT_ERROR);
        }
    }

    /// The process is gone, and with it what only it held.
    pub fn end_command(&mut self) {
        self.look();
        if self.link_held && !self.link_pinned && self.host_enabled() {
            self.disable(EXIT_UNREG);
        }
        (self.link_held, self.dead, self.calls, self.fault) = (false, false, 0, None);
    }
}

//! A task as the reader's BPF program saw it.

use anyhow::{Result, ensure};
use plain::Plain;
use scx_upgrade_engine::host::abi::TASK_DATA;
use state_migrate::{HEADER, Placed};

const ON_CPU: u32 = 1 << 0;
const ON_RQ: u32 = 1 << 1;
const IDLE: u32 = 1 << 2;
const EXITING: u32 = 1 << 3;
const NEW: u32 = 1 << 4;
const RECORD: u32 = 1 << 5;
const MOVED: u32 = 1 << 6;

/// What makes a task itself: PIDs are used again, start times under one PID are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kernel's `pid`: a thread's own.
    pub pid: u32,
    /// When it was made, in nanoseconds since boot.
    pub start_time: u64,
}

/// A scheduling class, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The kernel's own for ordinary tasks.
    Fair,
    /// sched_ext.
    Ext,
    /// Any other.
    Other,
}

impl From<u32> for Class {
    /// From the reader's `READER_FAIR` and so on.
    fn from(class: u32) -> Self {
        match class {
            0 => Self::Fair,
            1 => Self::Ext,
            _ => Self::Other,
        }
    }
}

/// One task: the mirror of `struct reader_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    start_time: u64,
    nvcsw: u64,
    nivcsw: u64,
    /// How long it has been on the CPU in all, in nanoseconds; brought up to date at ticks and switches.
    pub ran_ns: u64,
    /// Where it stands on a queue by vtime: the one number of a scheduler's that the kernel keeps in the task.
    pub dsq_vtime: u64,
    pid: u32,
    /// PID of its process.
    pub tgid: u32,
    flags: u32,
    class: u32,
    /// The epoch that its record was last brought up to; 0 without a record.
    pub stamp: u32,
    reserved: u32,
    comm: [u8; 16],
    data: [u8; TASK_DATA],
}

// SAFETY: integers and arrays of them, with the one gap named; see the assertion.
unsafe impl Plain for Entry {}
const _: () = assert!(size_of::<Entry>() == 80 + TASK_DATA);

impl Entry {
    const EMPTY: Self = Self {
        start_time: 0,
        nvcsw: 0,
        nivcsw: 0,
        ran_ns: 0,
        dsq_vtime: 0,
        pid: 0,
        tgid: 0,
        flags: 0,
        class: 0,
        stamp: 0,
        reserved: 0,
        comm: [0; 16],
        data: [0; TASK_DATA],
    };

    /// All entries in what the program wrote.
    pub(super) fn all(bytes: &[u8]) -> Result<Vec<Self>> {
        ensure!(bytes.len().is_multiple_of(size_of::<Self>()), "{} bytes are no entries", bytes.len());
        let decode = |chunk: &[u8]| {
            let mut entry = Self::EMPTY;
            // Of exactly its size, which is all that it asks for.
            let _ = plain::copy_from_bytes(&mut entry, chunk);
            entry
        };
        Ok(bytes.chunks_exact(size_of::<Self>()).map(decode).collect())
    }

    /// What makes it itself.
    pub fn key(&self) -> Key {
        Key { pid: self.pid, start_time: self.start_time }
    }

    /// Its name.
    pub fn comm(&self) -> String {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(self.comm.len());
        String::from_utf8_lossy(&self.comm[..end]).into_owned()
    }

    /// Times that it was switched away from, of its own will or not.
    pub fn switches(&self) -> u64 {
        self.nvcsw.wrapping_add(self.nivcsw)
    }

    /// Whether it slept, from before its record was read until after.
    pub fn is_asleep(&self) -> bool {
        self.flags & (ON_CPU | ON_RQ | MOVED | NEW) == 0
    }

    /// Whether it is a CPU's idle thread, which has no record and no class of interest.
    pub fn is_idle_thread(&self) -> bool {
        self.flags & IDLE != 0
    }

    /// Whether it is on its way out.
    pub fn is_exiting(&self) -> bool {
        self.flags & EXITING != 0
    }

    /// Whether it is being forked and has not been woken for the first time.
    pub fn is_being_born(&self) -> bool {
        self.flags & NEW != 0
    }

    /// Whether it has a record.
    pub fn has_record(&self) -> bool {
        self.flags & RECORD != 0
    }

    /// Its scheduling class.
    pub fn class(&self) -> Class {
        self.class.into()
    }

    /// The bytes of a column of its record. Empty for a column that is in no record of this size.
    pub fn column(&self, column: &Placed) -> &[u8] {
        let begin = column.offset.wrapping_sub(HEADER) as usize;
        self.data.get(begin..begin.saturating_add(column.ty.size() as usize)).unwrap_or_default()
    }

    /// A task asleep, with a record, for tests.
    #[cfg(test)]
    pub(crate) fn sleeping(pid: u32, switches: u64, stamp: u32) -> Self {
        Self { pid, start_time: 1, nvcsw: switches, stamp, class: 1, flags: RECORD, ..Self::EMPTY }
    }

    /// Set a column, for tests.
    #[cfg(test)]
    pub(crate) fn put(mut self, column: &Placed, bytes: &[u8]) -> Self {
        let begin = (column.offset - HEADER) as usize;
        self.data[begin..begin + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Make it another kind of task, for tests.
    #[cfg(test)]
    pub(crate) fn made(mut self, exiting: bool, has_record: bool, on_cpu: bool) -> Self {
        let set = [(exiting, EXITING), (has_record, RECORD), (on_cpu, ON_CPU)];
        self.flags = set.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag);
        self
    }
}

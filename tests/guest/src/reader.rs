//! Every task and its record in the host, read by a BPF program of its own (`src/bpf/reader.bpf.c`) that shares the map
//! with the host but no code with it or the policies: what it sees is not what they say of themselves.
//!
//! [`Reader::snapshot`] walks all tasks and copies their records; [`Reader::classes`] only counts tasks by scheduling
//! class. [`FairWatch`] takes that census over and over while something goes on.

mod entry;
mod fair_watch;

use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::{Iter, Link, Object, ObjectBuilder};
use scx_upgrade_sdk::host::Host;
use state_migrate::Scope;

use crate::clock::now_ns;
pub use entry::{Class, Entry, Key};
pub use fair_watch::{FairWatch, Seen};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reader.bpf.o"));

/// The host's map of task records.
const RECORDS: &str = "scxu_task_records";
/// The scx headers put this program into every object; it wants to be attached, and nothing here needs it.
const SCX_PROBE: &str = "scx_lib_init_probe";

/// Bytes that one read takes of a snapshot or a census: about a millisecond's work for an emulated CPU. The kernel
/// walks on in one go until it has them; a walk of 40,000 tasks without a break would use up slice after slice, and
/// whoever measures delays meanwhile would measure that.
const CHUNK_RECORDS: usize = 96 * size_of::<Entry>();
const CHUNK_CENSUS: usize = 1024;
/// Pause between two reads.
const PAUSE: Duration = Duration::from_micros(100);

/// The reader's programs, loaded. It holds the host's map of records, which outlives the host while this does.
#[derive(Debug)]
pub struct Reader {
    records: Link,
    census: Link,
    /// Bytes that the last snapshot took, to have room at once for the next.
    size: usize,
    // Keeps the programs' maps.
    _object: Object,
}

/// Tasks by scheduling class, idle threads left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Classes {
    /// In the kernel's fair class: none while the host runs.
    pub fair: u64,
    /// Under sched_ext.
    pub ext: u64,
    /// In another: real-time, deadline, the stoppers.
    pub other: u64,
}

/// All tasks, one after the other: not at one moment, but within `to_ns - from_ns`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The tasks in the order of their PIDs.
    pub entries: Vec<Entry>,
    /// When the walk began, `CLOCK_MONOTONIC` in nanoseconds.
    pub from_ns: u64,
    /// When it ended, likewise.
    pub to_ns: u64,
}

impl Reader {
    /// Load the reader and share the records of the host that runs.
    ///
    /// # Errors
    /// Not root, or a kernel without sched_ext.
    pub fn open(host: &Host) -> Result<Self> {
        Self::load(Some(host))
    }

    /// Load the reader where no host runs. It finds no records, but [`Reader::classes`] counts as ever.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn of_classes() -> Result<Self> {
        Self::load(None)
    }

    fn load(host: Option<&Host>) -> Result<Self> {
        let mut open = ObjectBuilder::default()
            .name("reader")?
            .open_memory(OBJECT)
            .context("the reader's BPF object")?;
        for mut program in open.progs_mut().filter(|program| program.name() == SCX_PROBE) {
            program.set_autoload(false);
        }
        if let Some(host) = host {
            let records = host.records(Scope::Task).context("the host has no task records")?;
            for mut map in open.maps_mut().filter(|map| map.name() == RECORDS) {
                map.reuse_fd(records.as_fd()).context("sharing the host's records")?;
            }
        }
        let object = open.load().context("the reader's BPF programs")?;
        let attach = |name: &str| -> Result<Link> {
            let program = object.progs_mut().find(|program| program.name() == name);
            let program = program.with_context(|| format!("the reader has no program {name}"))?;
            program.attach().with_context(|| format!("attaching {name}"))
        };
        let (records, census) = (attach("reader_records")?, attach("reader_census")?);
        Ok(Self { records, census, size: 0, _object: object })
    }

    /// Read every task and its record.
    ///
    /// # Errors
    /// The walk fails.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let from_ns = now_ns();
        // Some tasks more than last time.
        let bytes =
            walk(&self.records, CHUNK_RECORDS, self.size + self.size / 16).context("walking the tasks")?;
        self.size = bytes.len();
        let entries = Entry::all(&bytes)?;
        Ok(Snapshot { entries, from_ns, to_ns: now_ns() })
    }

    /// Count the tasks by scheduling class.
    ///
    /// # Errors
    /// The walk fails.
    pub fn classes(&mut self) -> Result<Classes> {
        let bytes =
            walk(&self.census, CHUNK_CENSUS, self.size / size_of::<Entry>()).context("counting the tasks")?;
        let mut classes = Classes::default();
        for class in bytes {
            match Class::from(u32::from(class)) {
                Class::Fair => classes.fair += 1,
                Class::Ext => classes.ext += 1,
                Class::Other => classes.other += 1,
            }
        }
        Ok(classes)
    }
}

/// All that an iterator writes, read in pieces of `chunk` bytes.
fn walk(link: &Link, chunk: usize, room: usize) -> Result<Vec<u8>> {
    let mut iter = Iter::new(link)?;
    let mut bytes = Vec::with_capacity(room);
    let mut piece = vec![0; chunk];
    loop {
        match iter.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            // A million tasks without a word: the kernel gives others a turn.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(PAUSE);
    }
}

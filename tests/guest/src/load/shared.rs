//! The memory that a load's processes share: a few words of control, and for each thread a cell in which it
//! counts its work. A thread writes only to its own cell, so counting never makes threads wait for each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use super::spec::{Kind, LoadSpec};

/// Words of the header.
const GO: usize = 0;
const QUIESCE: usize = 1;
const UP: usize = 2;
const IN_FLIGHT: usize = 3;
const HEADER: usize = 8;

/// A cell: work done, and when more is due.
const CELL: usize = 2;

/// `due` of a thread that is not to do anything yet.
const NOT_DUE: u64 = 0;

/// How a worker fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Running,
    /// A thread could not be created.
    Failed { errno: i32 },
}

/// The shared memory, mapped. Layout, in words of 64 bits: header, one word per worker (0, or the error that it
/// failed with), cells in the order of [`Kind::ALL`].
#[derive(Debug)]
pub(super) struct Shared {
    file: File,
    map: MmapRaw,
    words: usize,
    workers: usize,
    /// Number of the first cell of each kind.
    first: [usize; Kind::ALL.len()],
}

impl Shared {
    /// Makes it, all zero.
    pub(super) fn create(spec: &LoadSpec, workers: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string; the result is checked.
        let fd = unsafe { libc::memfd_create(c"load".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let cells: usize = Kind::ALL.iter().map(|kind| spec.count(*kind)).sum();
        file.set_len(((HEADER + workers + cells * CELL) * size_of::<AtomicU64>()) as u64)?;
        Self::map(file, spec, workers)
    }

    /// Maps what another process made, by its [`Shared::path`].
    pub(super) fn open(path: &PathBuf, spec: &LoadSpec, workers: usize) -> io::Result<Self> {
        Self::map(OpenOptions::new().read(true).write(true).open(path)?, spec, workers)
    }

    fn map(file: File, spec: &LoadSpec, workers: usize) -> io::Result<Self> {
        let map = MmapRaw::map_raw(&file)?;
        let words = map.len() / size_of::<AtomicU64>();
        let mut cell = 0;
        let first = Kind::ALL.map(|kind| {
            let first = cell;
            cell += spec.count(kind);
            first
        });
        if words != HEADER + workers + cell * CELL {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory of another load"));
        }
        Ok(Self { file, map, words, workers, first })
    }

    /// Where other processes can open it while this one lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is this long, page aligned, and lives as long as `self`. All processes access it as
        // atomics only, and every bit pattern is a valid one.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), self.words) }
    }

    /// Lets the busy kinds begin.
    pub(super) fn go(&self) {
        self.words()[GO].store(1, Ordering::SeqCst);
    }

    /// Whether the busy kinds may begin.
    pub(super) fn may_begin(&self) -> bool {
        self.words()[GO].load(Ordering::Relaxed) != 0
    }

    /// Counts a thread that runs.
    pub(super) fn add_up(&self) {
        self.words()[UP].fetch_add(1, Ordering::Relaxed);
    }

    /// Threads that have run.
    pub(super) fn up(&self) -> usize {
        self.words()[UP].load(Ordering::Relaxed) as usize
    }

    /// Forbids new children and threads.
    pub(super) fn quiesce(&self) {
        self.words()[QUIESCE].store(1, Ordering::SeqCst);
    }

    /// Children and threads being made, run or waited for. Once it is 0 after [`Shared::quiesce`], it stays so.
    pub(super) fn in_flight(&self) -> u64 {
        self.words()[IN_FLIGHT].load(Ordering::SeqCst)
    }

    /// Runs `make`, which creates something and waits for its end, unless that is forbidden by now.
    pub(super) fn fly<T>(&self, make: impl FnOnce() -> T) -> Option<T> {
        // Announce, then look: `quiesce` and `in_flight` come in the opposite order.
        self.words()[IN_FLIGHT].fetch_add(1, Ordering::SeqCst);
        let made = (self.words()[QUIESCE].load(Ordering::SeqCst) == 0).then(make);
        self.words()[IN_FLIGHT].fetch_sub(1, Ordering::SeqCst);
        made
    }

    /// Says that worker `index` could not create a thread.
    pub(super) fn fail(&self, index: usize, errno: i32) {
        self.words()[HEADER + index].store(errno as u64, Ordering::Release);
    }

    /// How worker `index` fares.
    pub(super) fn state(&self, index: usize) -> State {
        match self.words()[HEADER + index].load(Ordering::Acquire) {
            0 => State::Running,
            errno => State::Failed { errno: errno as i32 },
        }
    }

    /// The cell of thread `index` of `kind`.
    pub(super) fn cell(&self, kind: Kind, index: usize) -> Cell<'_> {
        let at = HEADER + self.workers + (self.first[kind as usize] + index) * CELL;
        Cell { count: &self.words()[at], due: &self.words()[at + 1] }
    }
}

/// What one thread says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    count: &'a AtomicU64,
    due: &'a AtomicU64,
}

impl Cell<'_> {
    /// Counts one unit of work; the next is due at `due_ns` on the monotonic clock.
    pub(super) fn done(&self, due_ns: u64) {
        self.count.store(self.count() + 1, Ordering::Relaxed);
        self.expect(due_ns);
    }

    /// The next unit is due at `due_ns`.
    pub(super) fn expect(&self, due_ns: u64) {
        self.due.store(due_ns, Ordering::Relaxed);
    }

    /// Work done.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long before `now_ns` the next unit was due; 0 when that is still to come.
    pub(super) fn overdue_ns(&self, now_ns: u64) -> u64 {
        match self.due.load(Ordering::Relaxed) {
            NOT_DUE => 0,
            due => now_ns.saturating_sub(due),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_see_the_same_cells() {
        let spec = LoadSpec::mixed(200);
        let one = Shared::create(&spec, 2).unwrap();
        let two = Shared::open(&one.path(), &spec, 2).unwrap();
        for kind in Kind::ALL {
            two.cell(kind, spec.count(kind) - 1).done(70);
        }
        for kind in Kind::ALL {
            let last = one.cell(kind, spec.count(kind) - 1);
            assert_eq!((last.count(), last.overdue_ns(100), last.overdue_ns(60)), (1, 30, 0));
            assert_eq!(one.cell(kind, 0).count(), u64::from(spec.count(kind) == 1));
        }
        two.fail(1, libc::EAGAIN);
        assert_eq!((one.state(0), one.state(1)), (State::Running, State::Failed { errno: libc::EAGAIN }));
        assert!(Shared::open(&one.path(), &LoadSpec::mixed(201), 2).is_err());
    }

    #[test]
    fn nothing_flies_after_quiesce() {
        let shared = Shared::create(&LoadSpec::mixed(50), 1).unwrap();
        assert_eq!(shared.fly(|| shared.in_flight()), Some(1));
        shared.quiesce();
        assert_eq!(shared.fly(|| ()), None);
        assert_eq!(shared.in_flight(), 0);
    }
}

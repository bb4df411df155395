//! What the threads do, one function a role. None of them returns; the process ends under them.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};

use super::rng::Rng;
use super::shared::{Cell, Shared};
use super::spec::{Kind, LoadSpec};
use super::thread::Thread;
use crate::clock::{now_ns, sleep_until};

/// Steps of a small piece of work: about 1 us natively.
const TRIFLE: u32 = 500;

/// Steps of a round of a CPU-bound thread: about 10 us natively.
const ROUND: u32 = 10_000;

/// What all roles of a worker share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    pub(super) spec: &'static LoadSpec,
    pub(super) shared: &'static Shared,
}

impl Stage {
    fn cell(&self, kind: Kind, index: usize) -> Cell<'static> {
        self.shared.cell(kind, index)
    }

    fn rng(&self, kind: Kind, index: usize) -> Rng {
        Rng::new(self.spec.seed, ((kind as u64) << 32) | index as u64)
    }

    /// Counts this thread as up, names it, and waits until all are.
    fn begin(&self, name: &std::ffi::CStr) {
        // SAFETY: the name is a C string; a longer one than 15 bytes would be cut.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        self.shared.add_up();
        while !self.shared.may_begin() {
            sleep_until(now_ns() + 10_000_000);
        }
    }

    /// Calls `act` for ever, at random but `per_s` times a second over the `count` threads of the kind. A slow
    /// machine acts less often; what it missed is not made up for.
    fn pace(&self, kind: Kind, index: usize, per_s: f64, mut act: impl FnMut() -> bool) -> ! {
        let count = if kind == Kind::Pair { self.spec.pairs } else { self.spec.count(kind) };
        let (cell, mut rng) = (self.cell(kind, index), self.rng(kind, index));
        let period = LoadSpec::period_ns(count, per_s);
        let mut due = now_ns() + rng.below(period.max(1));
        cell.expect(due);
        loop {
            sleep_until(due);
            let acted = act();
            due = now_ns() + rng.around(period, 2);
            if acted {
                cell.done(due);
            }
        }
    }

    /// [`Kind::Sleep`]. Starts at once, with its name and nice value from the worker's main thread: a system call
    /// less for each of thousands.
    pub(super) fn sleep(self, index: usize) {
        let (cell, mut rng) = (self.cell(Kind::Sleep, index), self.rng(Kind::Sleep, index));
        let mean = LoadSpec::period_ns(self.spec.count(Kind::Sleep), self.spec.wakes_per_s);
        // Its own period. The factor is ln 3: so much more often do periods spread over 0.5..1.5 come round.
        let period = rng.around((mean as f64 * 1.0986) as u64, 2);
        let mut due = now_ns() + rng.below(period.max(1));
        cell.expect(due);
        self.shared.add_up();
        loop {
            sleep_until(due);
            work(TRIFLE);
            due = now_ns() + rng.around(period, 8);
            cell.done(due);
        }
    }

    /// [`Kind::Cpu`].
    pub(super) fn cpu(self, index: usize) {
        let (burst, rest) = (self.spec.cpu_burst.as_nanos() as u64, self.spec.cpu_rest.as_nanos() as u64);
        let (cell, mut rng) = (self.cell(Kind::Cpu, index), self.rng(Kind::Cpu, index));
        // SAFETY: takes numbers only; 0 is this thread. Refused for lack of privilege, it changes nothing.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.spec.cpu_nice) };
        self.begin(c"load-cpu");
        loop {
            let end = now_ns() + rng.around(burst, 4);
            let mut now = now_ns();
            cell.expect(now);
            while now < end || rest == 0 {
                work(ROUND);
                now = now_ns();
                cell.done(now);
            }
            let due = now + rng.around(rest, 4);
            cell.expect(due);
            sleep_until(due);
        }
    }

    /// [`Kind::Pair`], the thread that sends first. `index` is that of the pair.
    pub(super) fn ping(self, index: usize, mut to: File, mut from: File) {
        self.begin(c"load-ping");
        let mut token = [0; 8];
        self.pace(Kind::Pair, 2 * index, self.spec.round_trips_per_s, || {
            to.write_all(&token).is_ok() && from.read_exact(&mut token).is_ok()
        })
    }

    /// [`Kind::Pair`], the thread that returns what it gets.
    pub(super) fn pong(self, index: usize, mut to: File, mut from: File) {
        let cell = self.cell(Kind::Pair, 2 * index + 1);
        let period = LoadSpec::period_ns(self.spec.pairs, self.spec.round_trips_per_s);
        self.begin(c"load-pong");
        // The first thread sends after one and a half periods at most; twice that leaves room for both.
        cell.expect(now_ns() + 3 * period);
        let mut token = [0; 8];
        while from.read_exact(&mut token).is_ok() {
            work(TRIFLE);
            if to.write_all(&token).is_err() {
                break;
            }
            cell.done(now_ns() + 3 * period);
        }
        // Only reached when the pipe broke, which shows as a thread that is overdue.
    }

    /// [`Kind::Fork`].
    pub(super) fn fork(self, index: usize) {
        self.begin(c"load-fork");
        self.pace(Kind::Fork, index, self.spec.forks_per_s, || self.shared.fly(child).unwrap_or(true))
    }

    /// [`Kind::Spawn`].
    pub(super) fn spawn(self, index: usize) {
        self.begin(c"load-spawn");
        self.pace(Kind::Spawn, index, self.spec.spawns_per_s, || {
            let churn = || Thread::spawn(self.spec.stack_bytes, || work(ROUND)).map(Thread::join).is_ok();
            self.shared.fly(churn).unwrap_or(true)
        })
    }
}

/// Computes: `steps` dependent steps.
fn work(steps: u32) {
    let mut state = u64::from(steps) | 1;
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state = black_box(state ^ (state << 17));
    }
}

/// Forks a child that works a little and exits; waits for it. Whether that came off.
fn child() -> bool {
    // SAFETY: the child calls nothing but what is async-signal-safe, and does not return.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Should this process be killed, the child goes too.
        // SAFETY: takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // Touch pages of its own, as any real child does.
        black_box([1_u8; 8 << 10]);
        work(ROUND);
        // SAFETY: ends the child at once, running nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the place for the status is valid.
    while pid > 0 && unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return false;
        }
    }
    pid > 0 && status == 0
}

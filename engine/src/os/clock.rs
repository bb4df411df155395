//! What time it is, and how long each step took.

use std::time::Instant;
use std::time::SystemTime;

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `CLOCK_MONOTONIC`, ns: the same for all processes of the machine.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` has room for the answer; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// Laps of a monotonic clock, in ns.
#[derive(Debug)]
pub(crate) struct Clock {
    begin: Instant,
    last: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        let now = Instant::now();
        Clock { begin: now, last: now }
    }

    pub fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let lap = now - self.last;
        self.last = now;
        lap.as_nanos() as u64
    }

    pub fn total(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }
}

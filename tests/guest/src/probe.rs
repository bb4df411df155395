//! The wake-up probe: threads that sleep to points in time, one every period, and record how late they wake.
//!
//! # What a sample is
//! A thread sleeps to an absolute target on `CLOCK_MONOTONIC` and on waking takes `delay = now - target`. That
//! holds the timer interrupt, the scheduler's decision and the switch.
//!
//! # A stall weighs as long as it lasts
//! A probe that wakes 50 periods late has missed 50 further targets. To count only the one late sample
//! would hide the stall from every percentile (coordinated omission). So each missed target is a sample too,
//! with the delay that it would have seen: a stall of 50 ms at a period of 1 ms gives 51 samples, 50 ms, 49 ms, ...
//! 0 ms. Then the probe goes on with the next target that lies in the future. [`Window::missed`] says how many
//! samples came about this way.
//!
//! # Windows
//! [`Probe::window`] closes a window at the time of the call. A sample belongs to the window that its *target*
//! lies in; the call waits until each thread has woken for a target past the closing time, so a stall that is
//! still under way is not passed to the next window and lost from this one. A thread that does not wake within
//! [`GIVE_UP`] is reported in [`Window::stuck`], and its delay so far counts.

mod control;
mod ring;
mod stats;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use crate::clock::{now_ns, sleep_until};
pub use control::Control;
use ring::{Reader, Ring};
pub use stats::{Sample, Window};

/// How long [`Probe::window`] waits for a probe thread to wake before it reports it as stuck.
pub const GIVE_UP: Duration = Duration::from_secs(30);

/// Wakings kept per thread while no window is closed: 262 s at a period of 1 ms, 4 MiB.
const CAPACITY: usize = 1 << 18;

/// How to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeSpec {
    /// Time between two targets of one thread; at least 1 us.
    pub period: Duration,
    /// Probe threads, their targets spread evenly over the period. Each adds its own load.
    pub threads: usize,
}

impl Default for ProbeSpec {
    /// One thread, a target every millisecond.
    fn default() -> Self {
        Self { period: Duration::from_millis(1), threads: 1 }
    }
}

/// A running probe. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    threads: Vec<(JoinHandle<()>, Reader)>,
    period_ns: u64,
    from_ns: u64,
}

impl Probe {
    /// Starts one probe thread with this period. See [`Probe::with`].
    ///
    /// # Errors
    /// As [`Probe::with`].
    pub fn start(period: Duration) -> io::Result<Self> {
        Self::with(ProbeSpec { period, ..ProbeSpec::default() })
    }

    /// Starts the probe; the first window begins now.
    ///
    /// # Errors
    /// The period is under 1 us, no threads are asked for, or a thread cannot be created.
    pub fn with(spec: ProbeSpec) -> io::Result<Self> {
        Self::with_setup(spec, |_| {})
    }

    /// As [`Probe::with`]. Each thread first runs `setup` with its number.
    fn with_setup(spec: ProbeSpec, setup: impl Fn(usize) + Clone + Send + 'static) -> io::Result<Self> {
        let period_ns = u64::try_from(spec.period.as_nanos()).unwrap_or(u64::MAX);
        if !(1_000..=u64::MAX / 4).contains(&period_ns) || spec.threads == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a probe needs a period of 1 us or more, and a thread",
            ));
        }
        // Touching the rings takes milliseconds: before the first window, not in it.
        let rings: Vec<_> = (0..spec.threads).map(|_| Arc::new(Ring::new(CAPACITY))).collect();
        let (stop, from_ns) = (Arc::new(AtomicBool::new(false)), now_ns());
        // Dropped on an early return, which ends the threads started so far.
        let mut probe = Self { stop, threads: Vec::with_capacity(spec.threads), period_ns, from_ns };
        for (index, ring) in rings.into_iter().enumerate() {
            let first = from_ns + period_ns + period_ns * index as u64 / spec.threads as u64;
            ring.set_target(first);
            let reader = Reader::new(Arc::clone(&ring));
            let (stop, setup) = (Arc::clone(&probe.stop), setup.clone());
            let thread = Builder::new().name(format!("probe-{index}")).spawn(move || {
                setup(index);
                run(&ring, &stop, first, period_ns);
            })?;
            probe.threads.push((thread, reader));
        }
        Ok(probe)
    }

    /// Closes the current window at this moment, begins the next, and returns what the closed one saw, over all
    /// threads. Takes until each thread's next waking, usually a period or less.
    pub fn window(&mut self) -> Window {
        let (from_ns, to_ns) = (self.from_ns, now_ns());
        self.from_ns = to_ns;
        let mut window = Window::empty(from_ns, to_ns);
        let give_up = to_ns + GIVE_UP.as_nanos() as u64;
        for (_, reader) in &mut self.threads {
            // The target it now sleeps to is past the end: every sample of this window is in the ring.
            while reader.target() < to_ns && now_ns() < give_up {
                sleep_until((now_ns() + self.period_ns).min(give_up));
            }
            let target = reader.target();
            window.lost += reader.take(to_ns, |target, delay| window.add(target, delay, self.period_ns));
            if target < to_ns {
                window.stuck += 1;
                window.add(target, now_ns() - target, self.period_ns);
            }
        }
        window.rank();
        window
    }

    /// Ends the probe and returns what the last window saw.
    pub fn stop(mut self) -> Window {
        self.window()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (thread, _) in self.threads.drain(..) {
            // A probe thread has nothing that panics; if one did, its window already shows it as stuck.
            let _ = thread.join();
        }
    }
}

/// A probe thread: sleep, record, realign.
fn run(ring: &Ring, stop: &AtomicBool, first: u64, period_ns: u64) {
    // The kernel may by default fire a normal thread's timer 50 us late, to batch wake-ups. That is not delay.
    // SAFETY: this option takes one number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
    let mut target = first;
    while !stop.load(Ordering::Relaxed) {
        sleep_until(target);
        let delay = now_ns().saturating_sub(target);
        let next = target + period_ns * (delay / period_ns + 1);
        ring.push(target, delay, next);
        target = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_each_other_and_hold_every_target() {
        let period = Duration::from_millis(2);
        let mut probe = Probe::with(ProbeSpec { period, threads: 2 }).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let one = probe.window();
        std::thread::sleep(Duration::from_millis(60));
        let two = probe.stop();
        assert_eq!(one.to_ns, two.from_ns);
        for window in [&one, &two] {
            assert_eq!((window.lost, window.stuck), (0, 0));
            assert_eq!(window.samples, window.raw.len());
            assert!(window.p50_us <= window.p99_us && window.p99_us <= window.p999_us);
            assert!(window.p999_us <= window.max_us);
        }
        // With missed targets counted in, no period is without a sample, however slow this machine is.
        let expected = (two.to_ns - one.from_ns) / 2_000_000 * 2;
        assert!((one.samples + two.samples) as u64 + 4 >= expected, "{expected}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Probe::start(Duration::ZERO).is_err());
        assert!(Probe::with(ProbeSpec { threads: 0, ..ProbeSpec::default() }).is_err());
    }
}

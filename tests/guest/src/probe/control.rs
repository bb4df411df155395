//! Control threads: whether the machine itself stood still.
//!
//! Each CPU has a thread in a real-time class that sleeps to a point in time, one every millisecond. No sched_ext scheduler
//! decides when it runs. It is late only where the CPU did not execute anything (an emulator's or a hypervisor's CPU that got no
//! time) or where the kernel kept interrupts or preemption off. A delay of a normal thread in such a time says nothing about
//! its scheduler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Probe, ProbeSpec};

/// Time between two points. Also what a thread may be late before it misses one.
const PERIOD: Duration = Duration::from_millis(1);
/// Above the lowest real-time priority, which `scx-upgrade` takes for its commit.
const PRIORITY: i32 = 10;

/// The control threads of all CPUs. They end when it is dropped.
#[derive(Debug)]
pub struct Control(Vec<Probe>);

impl Control {
    /// Starts one thread for each CPU; the first window begins now.
    ///
    /// # Errors
    /// A thread cannot be made, or cannot be pinned or become a real-time one, which takes root.
    pub fn start() -> io::Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        let (ready, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let spec = ProbeSpec { period: PERIOD, threads: 1 };
        let probes = (0..cpus).map(|cpu| {
            let (ready, failed) = (Arc::clone(&ready), Arc::clone(&failed));
            Probe::with_setup(spec, move |_| {
                failed.fetch_add(usize::from(!become_control(cpu)), Ordering::Relaxed);
                ready.fetch_add(1, Ordering::Release);
            })
        });
        let control = Self(probes.collect::<io::Result<_>>()?);
        while ready.load(Ordering::Acquire) < cpus {
            std::thread::sleep(PERIOD);
        }
        if failed.load(Ordering::Relaxed) > 0 {
            return Err(io::Error::other("a control thread could not be pinned or become a real-time one"));
        }
        Ok(control)
    }

    /// Closes the current window and begins the next: the longest that any CPU was late in the closed one, microseconds.
    pub fn window(&mut self) -> f64 {
        self.0.iter_mut().map(|probe| probe.window().max_us).fold(0.0, f64::max)
    }
}

/// Pins the calling thread to `cpu` and makes it a real-time one. Whether that worked.
fn become_control(cpu: usize) -> bool {
    // SAFETY: a set of CPUs is plain memory for which zeros are valid; `cpu` is below the machine's number of CPUs, for which
    // the set has room, or CPU_SET ignores it; both values outlive the calls; 0 names the calling thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        let param = libc::sched_param { sched_priority: PRIORITY };
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
            && libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) == 0
    }
}

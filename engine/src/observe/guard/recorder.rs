//! Wake-up delays over time, in short windows, while something is done: for a picture of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::sample::Delays;
use super::watch::Watch;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::pins::Pins;
use crate::os::clock::monotonic_ns;

/// So many windows are kept, the latest: two minutes of 50 ms each, of 2 KiB each.
const KEPT: usize = 2400;

/// What was seen in one window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Its beginning: `CLOCK_MONOTONIC`, ns.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// The generation that was active at its end.
    pub generation: u32,
    /// From wake-up to running, of the tasks that began to run in it.
    pub delays: Delays,
}

/// Records until it is finished or dropped.
#[derive(Debug)]
pub struct Recorder {
    /// When it ends: `CLOCK_MONOTONIC`, ns.
    until: Arc<AtomicU64>,
    thread: Option<JoinHandle<(VecDeque<Window>, Option<Error>)>>,
}

impl Recorder {
    /// Attach, and begin with windows of this length.
    ///
    /// # Errors
    /// No host runs, or the kernel takes the programs not.
    pub fn start(pins: &Pins, window: Duration) -> Result<Recorder> {
        let until = Arc::new(AtomicU64::new(u64::MAX));
        let (ready, begun) = mpsc::channel();
        let (end, pins) = (until.clone(), pins.clone());
        let thread = std::thread::spawn(move || {
            let begun = Host::running(&pins).and_then(|host| Ok((Watch::attach(&host)?, host)));
            let mut windows = VecDeque::new();
            let (mut watch, host) = match begun {
                Ok(begun) => begun,
                Err(e) => return (windows, Some(e)),
            };
            // Who started it may be gone; then it is told to end as well.
            let _ = ready.send(());
            let mut from_ns = monotonic_ns();
            while from_ns < end.load(Ordering::Relaxed) {
                std::thread::sleep(window);
                let to_ns = monotonic_ns();
                match watch.delays(&host) {
                    Ok((generation, delays)) => {
                        windows.push_back(Window { from_ns, to_ns, generation, delays });
                    }
                    Err(e) => return (windows, Some(e)),
                }
                if windows.len() > KEPT {
                    windows.pop_front();
                }
                from_ns = to_ns;
            }
            (windows, None)
        });
        let mut recorder = Recorder { until, thread: Some(thread) };
        match begun.recv() {
            Ok(()) => Ok(recorder),
            Err(_) => Err(recorder.join().1.unwrap_or(Error::NothingRunning)),
        }
    }

    /// End it by itself at this time, `CLOCK_MONOTONIC` in ns.
    pub fn end_at(&self, ns: u64) {
        self.until.store(ns, Ordering::Relaxed);
    }

    /// Wait for its end ([`Recorder::end_at`]). What it saw, oldest first, and why it saw no more, if it had to end before.
    pub fn finish(mut self) -> (Vec<Window>, Option<Error>) {
        let (windows, error) = self.join();
        (windows.into(), error)
    }

    fn join(&mut self) -> (VecDeque<Window>, Option<Error>) {
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end_at(0);
        let _ = self.join();
    }
}

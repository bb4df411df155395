//! A window of measurement with something happening in it.
//!
//! ```text
//! 0              1/4                                       1
//! |--- probe ----|- snapshot -|- action -|- snapshot ------|
//!                             |-- watch, 1/4 at least --|
//! ```
//!
//! The probe and the control threads go on through all of it. Reading the tasks and watching the fair class take CPU time too, so every window
//! holds them at the same places, the one without an action as well.

use std::time::Duration;

use anyhow::{Context as _, Result};
use scx_upgrade_engine::host::Host;

use crate::clock::{now_ns, sleep_until};
use crate::probe::{Control, Probe, Window};
use crate::reader::{FairWatch, Reader, Seen, Snapshot};

/// Time between two points of the probe.
const PERIOD: Duration = Duration::from_millis(1);

/// The instruments.
#[derive(Debug)]
pub struct Stage {
    probe: Probe,
    control: Control,
    reader: Reader,
    /// The watch's own; it has it while it watches.
    watcher: Option<Reader>,
    window_ns: u64,
}

/// What a window gave.
#[derive(Debug)]
pub struct Measured<T> {
    /// Wake-up delays.
    pub window: Window,
    /// The longest that a control thread was late, microseconds.
    pub control_us: f64,
    /// The tasks just before the action.
    pub before: Snapshot,
    /// The tasks just after it.
    pub after: Snapshot,
    /// What the watch saw.
    pub seen: Seen,
    /// How long the action took, ns.
    pub action_ns: u64,
    /// When it began, `CLOCK_MONOTONIC` in nanoseconds.
    pub acted_ns: u64,
    /// What the action gave.
    pub outcome: T,
}

impl Stage {
    /// Set up, for windows of that length.
    ///
    /// # Errors
    /// The reader's programs cannot be loaded, or probe or control threads cannot be started.
    pub fn open(host: &Host, window: Duration) -> Result<Self> {
        let mut reader = Reader::open(host)?;
        // Once for nothing: the next one knows how much room it needs.
        reader.snapshot()?;
        let watcher = Some(Reader::open(host)?);
        let (probe, control) = (Probe::start(PERIOD)?, Control::start()?);
        Ok(Self { probe, control, reader, watcher, window_ns: window.as_nanos() as u64 })
    }

    /// One window. It is longer than the others only if the action is.
    ///
    /// # Errors
    /// Those of the action, or an instrument fails.
    pub fn measure<T>(&mut self, action: impl FnOnce() -> Result<T>) -> Result<Measured<T>> {
        let quarter = self.window_ns / 4;
        // What was between the windows is of no interest.
        self.probe.window();
        self.control.window();
        let begun = now_ns();
        sleep_until(begun + quarter);
        let before = self.reader.snapshot()?;

        let watch = FairWatch::begin(self.watcher.take().context("the watch failed earlier")?)?;
        let acted = now_ns();
        let outcome = action();
        let action_ns = now_ns() - acted;
        let after = self.reader.snapshot();
        sleep_until(acted + quarter);
        let (watcher, seen) = watch.end()?;
        self.watcher = Some(watcher);

        sleep_until(begun + self.window_ns);
        let (window, control_us) = (self.probe.window(), self.control.window());
        Ok(Measured {
            window,
            control_us,
            before,
            after: after?,
            seen,
            action_ns,
            acted_ns: acted,
            outcome: outcome?,
        })
    }
}

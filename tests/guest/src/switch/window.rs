//! A window of measurement with something happening in it: the demo's, without its snapshots of records, since published
//! schedulers have none that could be read.
//!
//! ```text
//! 0              1/4                       1
//! |--- probe ----|- action ----------------|
//!                |-- watch, 1/4 at least --|
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::clock::{now_ns, sleep_until};
use crate::probe::{Probe, Window};
use crate::reader::{FairWatch, Reader};
use crate::switch::state_watch::StateWatch;
use crate::tasks::sched_ext;

/// Time between two points of the probe.
const PERIOD: Duration = Duration::from_millis(1);

/// The instruments.
#[derive(Debug)]
pub struct Stage {
    probe: Probe,
    /// The watch has it while it watches.
    reader: Option<Reader>,
    window_ns: u64,
}

/// What the watches saw.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// For how long the kernel's `state` was another than `enabled`, to a millisecond.
    pub gap_ns: u64,
    /// The most tasks in the fair class at a time.
    pub fair_max: u64,
    /// How often the tasks were counted.
    pub censuses: u64,
    /// How many schedulers the kernel attached meanwhile: by how much `enable_seq` moved.
    pub attached: u64,
}

/// What a window gave.
#[derive(Debug)]
pub struct Measured<T> {
    /// Wake-up delays.
    pub window: Window,
    /// What the watches saw.
    pub seen: Seen,
    /// What the action gave.
    pub outcome: T,
}

impl Stage {
    /// Set up, for windows of that length.
    ///
    /// # Errors
    /// The reader's programs cannot be loaded or the probe cannot be started.
    pub fn open(window: Duration) -> Result<Self> {
        let reader = Some(Reader::of_classes()?);
        Ok(Self { probe: Probe::start(PERIOD)?, reader, window_ns: window.as_nanos() as u64 })
    }

    /// One window. It is longer than the others only if the action is.
    ///
    /// # Errors
    /// Those of the action, or an instrument fails.
    pub fn measure<T>(&mut self, action: impl FnOnce() -> Result<T>) -> Result<Measured<T>> {
        let quarter = self.window_ns / 4;
        // What was between the windows is of no interest.
        self.probe.window();
        let begun = now_ns();
        sleep_until(begun + quarter);

        let enabled_before = sched_ext::enable_seq()?;
        let fair = FairWatch::begin(self.reader.take().context("the watch failed earlier")?)?;
        let state = StateWatch::begin()?;
        let acted = now_ns();
        let outcome = action();
        sleep_until(acted + quarter);
        let gap_ns = state.end()?;
        let (reader, fair) = fair.end()?;
        self.reader = Some(reader);
        let attached = sched_ext::enable_seq()? - enabled_before;

        sleep_until(begun + self.window_ns);
        let window = self.probe.window();
        let seen = Seen { gap_ns, fair_max: fair.fair_max, censuses: fair.censuses, attached };
        Ok(Measured { window, seen, outcome: outcome? })
    }
}

//! Watches for what must not happen during a swap: a task in the fair class, or sched_ext not `enabled`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::Reader;
use crate::tasks::sched_ext;

/// The shortest pause between two counts. Each pause is at least as long as the count before it, so that who watches the
/// scheduler is not what keeps it busy: 40,000 tasks take an emulated CPU some 100 ms, and are looked at five times a
/// second. What is over between two looks is not seen; that no scheduler was enabled meanwhile, `enable_seq` says.
const PAUSE: Duration = Duration::from_millis(5);

/// What a watch saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The most tasks in the fair class at a time.
    pub fair_max: u64,
    /// The fewest under sched_ext at a time.
    pub ext_min: u64,
    /// How often it counted.
    pub censuses: u64,
    /// How often it found sched_ext in which state; looked at more often than the tasks.
    pub states: BTreeMap<String, u64>,
}

impl Seen {
    /// Takes in what another watch saw: the worst of both.
    pub fn merge(&mut self, other: Self) {
        self.fair_max = self.fair_max.max(other.fair_max);
        self.ext_min = if self.censuses == 0 { other.ext_min } else { self.ext_min.min(other.ext_min) };
        self.censuses += other.censuses;
        for (state, times) in other.states {
            *self.states.entry(state).or_default() += times;
        }
    }
}

/// A watch that goes on, in a thread, until [`FairWatch::end`].
#[derive(Debug)]
pub struct FairWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Reader, Result<Seen>)>,
}

impl FairWatch {
    /// Begin; the reader comes back at the end.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn begin(mut reader: Reader) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = Builder::new().name("fair-watch".to_owned()).spawn(move || {
            let seen = watch(&mut reader, &flag);
            (reader, seen)
        })?;
        Ok(Self { stop, thread })
    }

    /// End, with what it saw. It counts at least once, and once more after this is called.
    ///
    /// # Errors
    /// A census failed.
    pub fn end(self) -> Result<(Reader, Seen)> {
        self.stop.store(true, Ordering::Relaxed);
        let (reader, seen) = self.thread.join().map_err(|_| anyhow!("the watch of the fair class died"))?;
        Ok((reader, seen.context("the watch of the fair class")?))
    }
}

fn watch(reader: &mut Reader, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen { ext_min: u64::MAX, ..Seen::default() };
    loop {
        let last = stop.load(Ordering::Relaxed);
        let begun = Instant::now();
        let classes = reader.classes()?;
        let pause = begun.elapsed().max(PAUSE);
        seen.fair_max = seen.fair_max.max(classes.fair);
        seen.ext_min = seen.ext_min.min(classes.ext);
        seen.censuses += 1;
        for _ in 0..10 {
            *seen.states.entry(sched_ext::state()?).or_default() += 1;
            if last {
                return Ok(seen);
            }
            std::thread::sleep(pause / 10);
        }
    }
}

//! For how long the kernel had no scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::clock::now_ns;
use crate::tasks::sched_ext;

/// How often it looks: what it says is true to about this.
const POLL: Duration = Duration::from_millis(1);

/// A watch that goes on, in a thread, until [`StateWatch::end`].
#[derive(Debug)]
pub struct StateWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl StateWatch {
    /// Begin.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn begin() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = Builder::new().name("state-watch".to_owned()).spawn(move || watch(&flag))?;
        Ok(Self { stop, thread })
    }

    /// End; for how long in all, in nanoseconds, the state was another than `enabled`.
    ///
    /// # Errors
    /// The state cannot be read, or the thread could not become a real-time one.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watch of the kernel's state died"))?
    }
}

fn watch(stop: &AtomicBool) -> Result<u64> {
    // Above what it watches: under no sched_ext scheduler, and not late when that is replaced.
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: `priority` outlives the call; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let (mut gone_ns, mut since) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        let enabled = sched_ext::state()? == "enabled";
        let now = now_ns();
        match since {
            None if !enabled => since = Some(now),
            Some(begin) if enabled => {
                gone_ns += now - begin;
                since = None;
            }
            _ => {}
        }
        std::thread::sleep(POLL);
    }
    Ok(gone_ns + since.map_or(0, |begin| now_ns() - begin))
}

//! End the host: tasks go back to the kernel's default scheduler, the records are gone.

use crate::transition::kernel::Kernel;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::names;
use crate::host::pins::Pins;
use crate::host::registry::SlotInfo;
use crate::observe::history;
use crate::observe::history::Entry;
use crate::observe::history::Verb;
use crate::os::realtime::Children;
use crate::transition::effect;

/// The kernel walks every task twice; busy ones by the ten thousand take it seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What stopping did.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Stopped {
    /// The policy that ran, as `name version`; none when only leftovers were removed, or while a rollback held.
    pub policy: Option<String>,
    /// The scheduler that runs now, where that is not the kernel's default.
    #[serde(default)]
    pub runs: Option<String>,
    /// From the removal of the link to the kernel's `disabled`, ns.
    pub detach_ns: u64,
    /// What went wrong beside it, in words: the history could not be written.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Stop the host and remove its pins. Also removes what an ejected or half-started host left.
///
/// # Errors
/// [`Error::NothingRunning`] when there is nothing to stop, or the kernel does not let go of it.
pub fn stop(pins: &Pins) -> Result<Stopped> {
    match locked_stop(pins) {
        Ok(mut stopped) => {
            let entry = Entry::stop(stopped.policy.as_deref(), stopped.detach_ns);
            stopped.warnings.extend(history::note(entry));
            Ok(stopped)
        }
        // Nothing was to be done, and nothing is to be told of it.
        Err(Error::NothingRunning) => Err(Error::NothingRunning),
        Err(error) => {
            let _ = history::note(Entry::failed(Verb::Stop, &error));
            Err(error)
        }
    }
}

pub(crate) fn locked_stop<K: Kernel>(pins: &K) -> Result<Stopped> {
    let _lock = pins.lock()?;
    // What runs may be what forgets this one.
    let realtime = pins.begin_realtime(Children::No);
    if pins.is_empty() {
        return Err(pins.hidden_host().unwrap_or(Error::NothingRunning));
    }
    let host = Host::running(pins).ok();
    let policy = host.as_ref().and_then(|host| {
        let slot = host.data.active().slot;
        host.registry.slot(slot).map(SlotInfo::title)
    });
    // Also one of another version, or in the middle of a reattach.
    let ours = pins.state() != "disabled" && pins.ops().starts_with(names::NAME);
    // Its pins must be all that holds it: what this process has mapped goes first.
    drop(host);
    let (begin, enable_seq) = (Instant::now(), pins.enable_seq());
    if let Err(source) = pins.remove_all() {
        let runs = pins.state() != "disabled" && pins.ops().starts_with(names::NAME);
        return Err(if ours && !runs { Error::NotRemoved { source: Box::new(source) } } else { source });
    }
    if ours && !pins.wait_for_state("disabled", TIMEOUT) {
        return Err(Error::NotEnabled {
            what: "the default scheduler again".to_string(),
            state: pins.state(),
            reason: "the pins are gone, but someone still holds the host's link open".to_string(),
            words: String::new(),
        });
    }
    let detach_ns = begin.elapsed().as_nanos() as u64;
    let runs = effect::after_stop(pins, enable_seq)?;
    Ok(Stopped { policy, runs, detach_ns, warnings: realtime.warning().into_iter().collect() })
}

//! What a command did, compared with what the kernel runs at its end. A command says that it succeeded only where the kernel runs
//! the host, and says that what ran before still runs only where it does.

use crate::transition::kernel::Kernel;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::names;
use crate::host::registry::SlotInfo;
use crate::kernel::sysfs;
use crate::observe::report::Report;

/// What ran when a command began to change something. Taken and compared under the lock, so that no other command interferes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    enabled: bool,
    active: Option<Active>,
}

impl Before {
    pub(crate) fn look<K: Kernel>(pins: &K) -> Before {
        Before { enabled: pins.state() == "enabled", active: pins.control_word() }
    }

    /// Looks again, once what an earlier command left is in order. A host that was ejected meanwhile did run before.
    pub(crate) fn look_again<K: Kernel>(&mut self, pins: &K) {
        let now = Before::look(pins);
        *self = Before { enabled: self.enabled || now.enabled, ..now };
    }

    /// The result of the command, as the kernel sees it.
    pub(crate) fn compare<K: Kernel, T>(self, pins: &K, result: Result<T>) -> Result<T> {
        let now = Now::look(pins);
        match (result, &now.ejected) {
            (Ok(done), None) => Ok(done),
            (Ok(_), Some(reason)) => {
                let done = now.active.map(|a| format!("generation {} was committed", a.generation));
                Err(Error::EjectedMeanwhile { reason: reason.clone(), done: done.unwrap_or_default() })
            }
            // Its words say already that the default scheduler runs.
            (Err(error), _) if error.exit_code() == 5 => Err(error),
            (Err(error), _) if self.enabled && !now.enabled => Err(Error::EjectedMeanwhile {
                reason: now.ejected.clone().unwrap_or_default(),
                done: format!("the command failed: {error}"),
            }),
            (Err(error), _) if now.enabled && self.is_committed(&now) => {
                Err(Error::AfterCommit { runs: runs(pins), source: Box::new(error) })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Does another policy run than before? None does while a rollback waits for a conversion, in a slot without a policy.
    fn is_committed(self, now: &Now) -> bool {
        let place = |active: Active| (active.slot, active.generation);
        let moved = self.active.zip(now.active).is_some_and(|(then, now)| place(then) != place(now));
        now.half_replaced || moved && now.ejected.is_none()
    }
}

/// What runs now.
#[derive(Debug, Clone)]
struct Now {
    enabled: bool,
    active: Option<Active>,
    half_replaced: bool,
    /// Why the host does not run, if it does not.
    ejected: Option<String>,
}

impl Now {
    fn look<K: Kernel>(pins: &K) -> Now {
        pins.wait_until_settled();
        let ejected = match Host::running(pins) {
            Ok(_) => None,
            Err(Error::Ejected { reason }) => Some(reason),
            Err(Error::OtherHost { .. } | Error::HalfReplaced) => None,
            Err(other) => Some(other.to_string()),
        };
        Now {
            enabled: pins.state() == "enabled",
            active: pins.control_word(),
            half_replaced: pins.is_half_replaced(),
            ejected,
        }
    }
}

/// What runs, in words.
fn runs<K: Kernel>(pins: &K) -> String {
    let Ok(host) = Host::running(pins) else { return "the new host runs".to_string() };
    let active = host.data.active();
    match host.registry.slot(active.slot).map(SlotInfo::title) {
        Some(policy) => format!("{policy} runs as generation {}", active.generation),
        None => "no policy runs, and the host serves tasks in the order in which they come".to_string(),
    }
}

/// Does the host run, after a command that reported `done`? Asked right before the command says so, without the lock.
///
/// # Errors
/// [`Error::EjectedMeanwhile`]: the kernel ejected it. [`Error::NothingRunning`]: another command stopped it.
pub fn confirm<K: Kernel>(pins: &K, done: &Report) -> Result<()> {
    pins.wait_until_settled();
    if Host::running(pins).is_ok() {
        return Ok(());
    }
    // It may be another command that detaches and attaches. What that does it says itself.
    let _lock = match pins.lock() {
        Err(Error::Locked { .. }) => return Ok(()),
        other => other?,
    };
    match Host::running(pins) {
        Ok(_) => Ok(()),
        Err(Error::Ejected { reason }) => {
            let done = format!("{} was committed as generation {}", done.to, done.generation);
            Err(Error::EjectedMeanwhile { reason, done })
        }
        Err(other) => Err(other),
    }
}

/// Is a scheduler enabled, of whomever? For what a command that failed says of what ran before.
pub fn is_enabled() -> bool {
    sysfs::wait_until_settled(sysfs::state);
    sysfs::state() == "enabled"
}

/// What runs after `stop`: nothing, or a scheduler of someone else's by its name.
///
/// # Errors
/// [`Error::NotEnabled`]: the host still runs.
pub(crate) fn after_stop<K: Kernel>(pins: &K, enable_seq: u64) -> Result<Option<String>> {
    match (pins.state().as_str(), pins.ops()) {
        ("disabled", _) => Ok(None),
        (state, ops) if ops.starts_with(names::NAME) && pins.enable_seq() == enable_seq => {
            Err(Error::NotEnabled {
                what: "the default scheduler again".to_string(),
                state: state.to_string(),
                reason: "the host still runs".to_string(),
                words: String::new(),
            })
        }
        (_, ops) => Ok(Some(ops)),
    }
}

//! The kernel took the host off: why, and what to do about it.
//!
//! [`Supervisor`] decides, and is a pure function of what happened when. What acts on it is `scx-upgrade recover --watch`.

use std::ffi::CStr;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::abi::ExitRecord;
use crate::error::Result;
use crate::folder::Folder;
use crate::history;
use crate::history::Entry;
use crate::host::Host;
use crate::pins::Pins;
use crate::registry::SlotInfo;
use crate::swap::Aim;

/// The kernel's dump of the latest ejection.
const DUMP: &CStr = c"ejection.dump";

/// Kinds of exits, by their numbers in `enum scx_exit_kind` (Linux v7.3 kernel/sched/ext/internal.h; the same since v6.12).
const EXIT_UNREG: u64 = 64;
const EXIT_UNREG_BPF: u64 = 65;
const EXIT_UNREG_KERN: u64 = 66;
const EXIT_SYSRQ: u64 = 67;
const EXIT_ERROR: u64 = 1024;
const EXIT_ERROR_BPF: u64 = 1025;
const EXIT_ERROR_STALL: u64 = 1026;
/// `SCX_ECODE_ACT_RESTART`: the kernel asks for the scheduler to be attached again, after a CPU came or went.
const ACT_RESTART: i64 = 1 << 48;

/// What kind of ejection it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Someone detached it, by its link.
    Detached,
    /// The policy itself asked for it: `scx_bpf_exit()`.
    Asked,
    /// The kernel asks for a new start: a CPU came or went.
    Restart,
    /// The kernel, for another reason.
    Kernel,
    /// Someone at the console pressed sysrq and S.
    Sysrq,
    /// The policy did something that it may not.
    Error,
    /// The policy itself said so: `scx_bpf_error()`.
    OwnError,
    /// A task waited for longer than the watchdog allows.
    Stall,
    /// Of a kind that this version does not know.
    Other,
}

impl Kind {
    pub(crate) fn of(exit: &ExitRecord) -> Kind {
        match exit.kind {
            EXIT_UNREG => Kind::Detached,
            EXIT_UNREG_BPF => Kind::Asked,
            EXIT_UNREG_KERN if exit.code & ACT_RESTART != 0 => Kind::Restart,
            EXIT_UNREG_KERN => Kind::Kernel,
            EXIT_SYSRQ => Kind::Sysrq,
            EXIT_ERROR => Kind::Error,
            EXIT_ERROR_BPF => Kind::OwnError,
            EXIT_ERROR_STALL => Kind::Stall,
            _ => Kind::Other,
        }
    }

    /// Did a person want the default scheduler? Then nobody but a person is to change that.
    pub fn is_wanted(self) -> bool {
        matches!(self, Kind::Sysrq | Kind::Detached)
    }

    /// Does it speak against the policy?
    fn is_fault(self) -> bool {
        !matches!(self, Kind::Restart)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Detached => "detached",
            Kind::Asked => "asked for",
            Kind::Restart => "restart",
            Kind::Kernel => "kernel",
            Kind::Sysrq => "sysrq",
            Kind::Error => "error",
            Kind::OwnError => "its own error",
            Kind::Stall => "stall",
            Kind::Other => "other",
        })
    }
}

/// One ejection, as the kernel told the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// What kind it was.
    pub kind: Kind,
    /// The kernel's words.
    pub reason: String,
    /// The policy that ran, as `name version`.
    pub policy: String,
    /// Its generation.
    pub generation: u32,
    /// Is another policy loaded, to go back to?
    pub has_other: bool,
    /// Which load of it: tells a policy from a later one in its slot.
    pub load: u64,
}

impl Ejection {
    /// That of the pinned host, with the kernel's debug dump; `None` if the kernel did not take it off, or has not told yet.
    ///
    /// # Errors
    /// What is pinned cannot be read.
    pub fn look(pins: &Pins) -> Result<Option<(Ejection, String)>> {
        let host = Host::pinned(pins)?;
        Ok(Ejection::of(&host).map(|ejection| (ejection, host.dump())))
    }

    /// Enter it into the history, and keep the dump beside that. What went wrong, for warnings: nothing depends on it.
    pub fn record(&self, dump: &str, folder: &Folder) -> Vec<String> {
        let kept = folder.replace(DUMP, dump.as_bytes()).err();
        let kept = kept.map(|e| format!("the kernel's dump is not kept: {e}"));
        history::note(Entry::ejected(self)).into_iter().chain(kept).collect()
    }

    /// That of a host that the kernel took off; `None` if it did not, or has not told yet.
    pub fn of(host: &Host) -> Option<Ejection> {
        let exit = host.data.exit()?;
        let active = host.data.active();
        let slot = host.registry.slot(active.slot);
        Some(Ejection {
            kind: Kind::of(&exit),
            reason: host.data.exit_reason().unwrap_or_default(),
            has_other: host.registry.rollback_target(active.slot).is_some(),
            policy: slot.map(SlotInfo::title).unwrap_or_default(),
            generation: active.generation,
            load: slot.map_or(0, |s| s.load),
        })
    }
}

/// When a supervisor does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A policy that has run for so long is good: its first ejection is taken for bad luck, and it is brought back.
    pub good_after: Duration,
    /// Ejections further apart have nothing to do with each other.
    pub window: Duration,
    /// So many within the window are put up with.
    pub at_most: usize,
    /// How long to wait before the second attempt within a window; twice as long before each next one.
    pub backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            good_after: Duration::from_secs(60),
            window: Duration::from_secs(600),
            at_most: 4,
            backoff: Duration::from_secs(1),
        }
    }
}

/// What is to be done about an ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Attach again, after a while, with this policy.
    Recover {
        /// Which.
        aim: Aim,
        /// How long to wait before.
        after: Duration,
    },
    /// Leave tasks on the default scheduler: it has failed too often.
    GiveUp,
}

/// Remembers what happened, so as not to do the same for ever.
#[derive(Debug, Clone)]
pub struct Supervisor {
    limits: Limits,
    /// When, and which load of a policy.
    faults: Vec<(Duration, u64)>,
}

impl Supervisor {
    /// One that knows of nothing yet.
    pub fn new(limits: Limits) -> Supervisor {
        Supervisor { limits, faults: Vec::new() }
    }

    /// The kernel took the host off at the time `now`, counted from any moment, when its policy had run for `ran`.
    pub fn ejected(&mut self, now: Duration, of: &Ejection, ran: Duration) -> Decision {
        let &Ejection { kind, load, has_other, .. } = of;
        if !kind.is_fault() {
            return Decision::Recover { aim: Aim::Same, after: Duration::ZERO };
        }
        self.faults.retain(|(then, _)| now.saturating_sub(*then) < self.limits.window);
        let is_first = self.faults.iter().all(|(_, known)| *known != load);
        self.faults.push((now, load));
        if self.faults.len() > self.limits.at_most {
            return Decision::GiveUp;
        }
        let aim =
            if is_first && ran >= self.limits.good_after || !has_other { Aim::Same } else { Aim::Before };
        let after = match self.faults.len() {
            1 => Duration::ZERO,
            // Bounded by `at_most` anyway; a limit that is set to millions must not overflow.
            n => self.limits.backoff * (1 << (n - 2).min(10)),
        };
        Decision::Recover { aim, after }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of_load(kind: Kind, load: u64, has_other: bool) -> Ejection {
        let (reason, policy) = (String::new(), "p 1".to_string());
        Ejection { kind, reason, policy, generation: 1, has_other, load }
    }

    fn aim(decision: Decision) -> Option<Aim> {
        match decision {
            Decision::Recover { aim, .. } => Some(aim),
            Decision::GiveUp => None,
        }
    }

    #[test]
    fn one_that_was_good_gets_a_second_chance_and_no_third() {
        let mut of = Supervisor::new(Limits::default());
        let first = of.ejected(at(10), &of_load(Kind::Stall, 7, true), LONG);
        assert_eq!(first, Decision::Recover { aim: Aim::Same, after: Duration::ZERO });
        assert_eq!(
            of.ejected(at(20), &of_load(Kind::Stall, 7, true), SHORT),
            Decision::Recover { aim: Aim::Before, after: at(1) }
        );
        // Long after, that is forgotten.
        assert_eq!(of.ejected(at(5000), &of_load(Kind::Stall, 7, true), LONG), first);
    }

    #[test]
    fn one_that_is_new_makes_way_for_the_one_before_if_there_is_one() {
        let mut of = Supervisor::new(Limits::default());
        assert_eq!(aim(of.ejected(at(0), &of_load(Kind::Error, 8, true), SHORT)), Some(Aim::Before));
        let mut alone = Supervisor::new(Limits::default());
        assert_eq!(aim(alone.ejected(at(0), &of_load(Kind::Error, 8, false), SHORT)), Some(Aim::Same));
    }

    #[test]
    fn it_waits_longer_each_time_and_gives_up() {
        let mut of = Supervisor::new(Limits::default());
        let waits: Vec<_> =
            (0..4).map(|n| of.ejected(at(n), &of_load(Kind::Error, n, true), SHORT)).collect();
        let after = |decision: &Decision| match decision {
            Decision::Recover { after, .. } => after.as_secs(),
            Decision::GiveUp => u64::MAX,
        };
        assert_eq!(waits.iter().map(after).collect::<Vec<_>>(), [0, 1, 2, 4]);
        assert_eq!(of.ejected(at(9), &of_load(Kind::Error, 9, true), SHORT), Decision::GiveUp);
    }

    #[test]
    fn a_cpu_that_comes_or_goes_is_nobodys_fault() {
        let mut of = Supervisor::new(Limits::default());
        for n in 0..100 {
            let decision = of.ejected(at(n), &of_load(Kind::Restart, 1, true), SHORT);
            assert_eq!(decision, Decision::Recover { aim: Aim::Same, after: Duration::ZERO });
        }
    }

    #[test]
    fn the_kernels_numbers_have_names() {
        let exit = |kind, code| ExitRecord { kind, code, reason: [0; 128], msg: [0; 1024] };
        assert_eq!(Kind::of(&exit(1026, 0)), Kind::Stall);
        assert_eq!(Kind::of(&exit(67, 0)), Kind::Sysrq);
        assert_eq!(Kind::of(&exit(66, 1 << 48 | 1 << 32)), Kind::Restart);
        assert_eq!(Kind::of(&exit(66, 0)), Kind::Kernel);
        assert_eq!(Kind::of(&exit(4096, 0)), Kind::Other);
    }

    proptest! {
        /// Whatever happens when: within any window no more recoveries than are allowed.
        #[test]
        fn it_never_flaps(gaps in proptest::collection::vec(0_u64..400, 1..60)) {
            let limits = Limits::default();
            let mut of = Supervisor::new(limits);
            let (mut now, mut recovered) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if aim(of.ejected(at(now), &of_load(Kind::Stall, now % 3, true), SHORT)).is_some() {
                    recovered.push(now);
                }
                let since = now.saturating_sub(limits.window.as_secs() - 1);
                prop_assert!(recovered.iter().filter(|then| **then >= since).count() <= limits.at_most);
            }
        }
    }
}

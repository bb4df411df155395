//! The kernel took the host off: why, and what to do about it.
//!
//! [`Supervisor`] decides, and is a pure function of what happened when. What acts on it is `scx-upgrade recover --watch`.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Btf;
use state_migrate::Kind as BtfKind;

use crate::error::Result;
use crate::host::Host;
use crate::host::abi::ExitRecord;
use crate::host::pins::Pins;
use crate::host::registry::RollbackTarget;
use crate::host::registry::SlotInfo;
use crate::kernel::sysfs;
use crate::observe::history;
use crate::observe::history::Entry;
use crate::os::private_dir::PrivateDir;

/// The kernel's dump of the latest ejection.
const DUMP: &CStr = c"ejection.dump";

/// `enum scx_exit_kind` and `enum scx_exit_code` of Linux v7.3 (kernel/sched/ext/internal.h), for a kernel whose BTF cannot be read.
const KINDS: [(&str, u64); 11] = [
    ("SCX_EXIT_UNREG", 64),
    ("SCX_EXIT_UNREG_BPF", 65),
    ("SCX_EXIT_UNREG_KERN", 66),
    ("SCX_EXIT_SYSRQ", 67),
    ("SCX_EXIT_PARENT", 68),
    ("SCX_EXIT_PARENT_KILL", 69),
    (ERROR, 1024),
    ("SCX_EXIT_ERROR_BPF", 1025),
    ("SCX_EXIT_ERROR_STALL", 1026),
    ("SCX_EXIT_ERROR_REENQ", 1027),
    ("SCX_EXIT_ERROR_RESCUE", 1028),
];
/// The first of the kinds that are errors: all above it are errors too.
const ERROR: &str = "SCX_EXIT_ERROR";
/// The kernel asks for the scheduler to be attached again, after a CPU came or went.
const ACT_RESTART: &str = "SCX_ECODE_ACT_RESTART";

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
    /// A task was re-enqueued again and again without running.
    Reenqueue,
    /// It overloaded what the kernel rescues tasks with.
    Rescue,
    /// The scheduler above it went, or sent it away.
    Parent,
    /// An error of a kind that this version does not know: taken as the policy's.
    OtherError,
    /// No error, and of a kind that this version does not know: somebody may have wanted it.
    Other,
}

/// The kernel's own names and numbers of exits.
#[derive(Debug, Clone)]
struct ExitNames {
    kinds: BTreeMap<u64, String>,
    /// The first number of an error.
    error: u64,
    restart: i64,
}

impl Default for ExitNames {
    fn default() -> Self {
        let kinds = KINDS.iter().map(|(name, number)| (*number, (*name).to_string())).collect();
        ExitNames { kinds, error: 1024, restart: 1 << 48 }
    }
}

impl ExitNames {
    /// Those of a kernel with this BTF. Where an enum is missing, those of Linux v7.3.
    fn of(btf: &Btf<'_>) -> ExitNames {
        let mut names = ExitNames::default();
        let enumerators = |kind: BtfKind, name: &str| {
            btf.find(kind, name).map(|id| btf.enumerators(id).collect::<Vec<_>>())
        };
        let of = |name: &str| enumerators(BtfKind::Enum, name).or_else(|| enumerators(BtfKind::Enum64, name));
        if let Some(kinds) = of("scx_exit_kind") {
            names.kinds = kinds.iter().map(|(name, number)| (*number, (*name).to_string())).collect();
            let error = kinds.iter().find(|(name, _)| *name == ERROR);
            names.error = error.map_or(names.error, |(_, number)| *number);
        }
        let restart = of("scx_exit_code").and_then(|codes| {
            codes.iter().find(|(name, _)| *name == ACT_RESTART).map(|(_, bit)| bit.cast_signed())
        });
        names.restart = restart.unwrap_or(names.restart);
        names
    }

    /// Those of this kernel. They are read once: the kernel's BTF does not change while it runs.
    fn of_this_kernel() -> &'static ExitNames {
        static NAMES: OnceLock<ExitNames> = OnceLock::new();
        NAMES.get_or_init(|| {
            let raw = sysfs::btf().ok();
            let btf = raw.as_ref().and_then(|raw| Btf::parse(raw).ok());
            btf.map_or_else(ExitNames::default, |btf| ExitNames::of(&btf))
        })
    }

    fn kind(&self, exit: &ExitRecord) -> Kind {
        match self.kinds.get(&exit.kind).map_or("", String::as_str) {
            "SCX_EXIT_UNREG" => Kind::Detached,
            "SCX_EXIT_UNREG_BPF" => Kind::Asked,
            "SCX_EXIT_UNREG_KERN" if exit.code & self.restart != 0 => Kind::Restart,
            "SCX_EXIT_UNREG_KERN" => Kind::Kernel,
            "SCX_EXIT_SYSRQ" => Kind::Sysrq,
            "SCX_EXIT_PARENT" | "SCX_EXIT_PARENT_KILL" => Kind::Parent,
            ERROR => Kind::Error,
            "SCX_EXIT_ERROR_BPF" => Kind::OwnError,
            "SCX_EXIT_ERROR_STALL" => Kind::Stall,
            "SCX_EXIT_ERROR_REENQ" => Kind::Reenqueue,
            "SCX_EXIT_ERROR_RESCUE" => Kind::Rescue,
            _ if exit.kind >= self.error => Kind::OtherError,
            _ => Kind::Other,
        }
    }

    /// The kernel's words, and of a kind that this version does not know its name and number.
    fn reason(&self, exit: &ExitRecord, words: String) -> String {
        if !matches!(self.kind(exit), Kind::Other | Kind::OtherError) {
            return words;
        }
        let name = self.kinds.get(&exit.kind).map_or("an exit kind without a name", String::as_str);
        format!("{name} ({}), which this version does not know: {words}", exit.kind)
    }
}

impl Kind {
    /// Is the default scheduler what somebody wanted, or may have? Then nobody but a person is to change that.
    pub fn is_wanted(self) -> bool {
        matches!(self, Kind::Sysrq | Kind::Detached | Kind::Parent | Kind::Other)
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
            Kind::Reenqueue => "re-enqueue loop",
            Kind::Rescue => "rescue overload",
            Kind::Parent => "parent scheduler",
            Kind::OtherError => "unknown error",
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
    pub fn record(&self, dump: &str, folder: &PrivateDir) -> Vec<String> {
        let kept = folder.replace(DUMP, dump.as_bytes()).err();
        let kept = kept.map(|e| format!("the kernel's dump is not kept: {e}"));
        let why = format!("{}: {}", self.kind, self.reason);
        history::note(Entry::ejected(&self.policy, &why)).into_iter().chain(kept).collect()
    }

    /// That of a host that the kernel took off; `None` if it did not, or has not told yet.
    pub fn of(host: &Host) -> Option<Ejection> {
        let exit = host.data.exit()?;
        let names = ExitNames::of_this_kernel();
        let active = host.data.active();
        let slot = host.registry.slot(active.slot);
        Some(Ejection {
            kind: names.kind(&exit),
            reason: names.reason(&exit, host.data.exit_reason().unwrap_or_default()),
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
        aim: RollbackTarget,
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
            return Decision::Recover { aim: RollbackTarget::Same, after: Duration::ZERO };
        }
        self.faults.retain(|(then, _)| now.saturating_sub(*then) < self.limits.window);
        let is_first = self.faults.iter().all(|(_, known)| *known != load);
        self.faults.push((now, load));
        if self.faults.len() > self.limits.at_most {
            return Decision::GiveUp;
        }
        let aim = if is_first && ran >= self.limits.good_after || !has_other {
            RollbackTarget::Same
        } else {
            RollbackTarget::Before
        };
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

    fn aim(decision: Decision) -> Option<RollbackTarget> {
        match decision {
            Decision::Recover { aim, .. } => Some(aim),
            Decision::GiveUp => None,
        }
    }

    #[test]
    fn one_that_was_good_gets_a_second_chance_and_no_third() {
        let mut of = Supervisor::new(Limits::default());
        let first = of.ejected(at(10), &of_load(Kind::Stall, 7, true), LONG);
        assert_eq!(first, Decision::Recover { aim: RollbackTarget::Same, after: Duration::ZERO });
        assert_eq!(
            of.ejected(at(20), &of_load(Kind::Stall, 7, true), SHORT),
            Decision::Recover { aim: RollbackTarget::Before, after: at(1) }
        );
        // Long after, that is forgotten.
        assert_eq!(of.ejected(at(5000), &of_load(Kind::Stall, 7, true), LONG), first);
    }

    #[test]
    fn one_that_is_new_makes_way_for_the_one_before_if_there_is_one() {
        let mut of = Supervisor::new(Limits::default());
        assert_eq!(
            aim(of.ejected(at(0), &of_load(Kind::Error, 8, true), SHORT)),
            Some(RollbackTarget::Before)
        );
        let mut alone = Supervisor::new(Limits::default());
        assert_eq!(
            aim(alone.ejected(at(0), &of_load(Kind::Error, 8, false), SHORT)),
            Some(RollbackTarget::Same)
        );
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
            assert_eq!(decision, Decision::Recover { aim: RollbackTarget::Same, after: Duration::ZERO });
        }
    }

    #[test]
    fn the_kernels_numbers_have_names() {
        let kind = |kind, code| ExitNames::default().kind(&exit(kind, code));
        assert_eq!(kind(1026, 0), Kind::Stall);
        assert_eq!(kind(67, 0), Kind::Sysrq);
        assert_eq!(kind(66, 1 << 48 | 1 << 32), Kind::Restart);
        assert_eq!(kind(66, 0), Kind::Kernel);
        assert_eq!((kind(68, 0), kind(69, 0)), (Kind::Parent, Kind::Parent));
        assert_eq!((kind(1027, 0), kind(1028, 0)), (Kind::Reenqueue, Kind::Rescue));
    }

    fn exit(kind: u64, code: i64) -> ExitRecord {
        ExitRecord { kind, code, reason: [0; 128], msg: [0; 1024] }
    }

    #[test]
    fn the_kernels_names_count_and_not_its_numbers() {
        let mut names = ExitNames::default();
        names.kinds.insert(67, "SCX_EXIT_NEW".to_string());
        names.kinds.insert(68, "SCX_EXIT_SYSRQ".to_string());
        names.kinds.insert(1029, "SCX_EXIT_ERROR_NEW".to_string());
        assert_eq!(names.kind(&exit(68, 0)), Kind::Sysrq);
        assert_eq!(names.kind(&exit(67, 0)), Kind::Other);
        names.restart = 1 << 50;
        assert_eq!(names.kind(&exit(66, 1 << 50)), Kind::Restart);
        assert_eq!(names.kind(&exit(66, 1 << 48)), Kind::Kernel);
        let said = names.reason(&exit(1029, 0), "words".to_string());
        assert!(said.starts_with("SCX_EXIT_ERROR_NEW (1029), which") && said.ends_with(": words"), "{said}");
        let said = names.reason(&exit(90, 0), "words".to_string());
        assert!(said.starts_with("an exit kind without a name (90), which"), "{said}");
        assert_eq!(names.reason(&exit(1026, 0), "words".to_string()), "words");
    }

    #[test]
    fn an_unknown_error_is_the_policys_and_an_unknown_end_may_be_wanted() {
        let names = ExitNames::default();
        let (error, end) = (names.kind(&exit(4096, 0)), names.kind(&exit(100, 0)));
        assert_eq!((error, end), (Kind::OtherError, Kind::Other));
        assert!(error.is_fault() && !error.is_wanted());
        assert!(end.is_wanted() && end.is_fault());
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

//! What was done to the scheduler, for people: one entry for each command that changed it, or tried to.
//!
//! Truth is in bpffs and ends with the boot. The history is in a file of `/var/lib` and outlives it. Nothing here is ever
//! read to decide anything, and nothing that goes wrong here stops a command: it is a warning. The entry is written after
//! the commit, when the lock is free again, and whoever waits for it waits for a moment only.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

pub use self::file::History;
pub use self::file::HistoryError;
pub use self::file::HistoryLog;
use crate::error::Error;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::SlotInfo;
use crate::observe::report::Report;
use crate::observe::report::Timings;
use crate::os::clock::unix_time;
use crate::os::identity::Binary;

/// How long a command waits for its entry to be on the disk.
const AT_MOST: Duration = Duration::from_secs(2);
/// The longest text that an entry keeps of a message, and of all arguments together, in bytes.
const LONGEST: usize = 2048;

/// What was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Start a host, or attach one again.
    Run,
    /// Another policy in the place of the one that runs.
    Swap,
    /// Back to one that is loaded.
    Rollback,
    /// Bring back what the kernel took off.
    Recover,
    /// The kernel took the host off.
    Eject,
    /// End the host.
    Stop,
    /// A policy's own process took over, or tried to, and did not come to tell a start from a swap.
    TakeOver,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Run => "run",
            Verb::Swap => "swap",
            Verb::Rollback => "rollback",
            Verb::Recover => "recover",
            Verb::Eject => "eject",
            Verb::Stop => "stop",
            Verb::TakeOver => "take over",
        })
    }
}

impl From<Kind> for Verb {
    fn from(kind: Kind) -> Verb {
        match kind {
            Kind::Start => Verb::Run,
            Kind::Swap => Verb::Swap,
            Kind::Rollback => Verb::Rollback,
            Kind::Recovery => Verb::Recover,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it was meant to.
    Done,
    /// With an error.
    Failed,
}

/// Who did it, as far as the kernel and sudo say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The real user id.
    pub uid: u32,
    /// The user id of the login session, which su and sudo do not change; none in a service.
    pub login_uid: Option<u32>,
    /// `SUDO_USER`: whoever runs a command as root can set it to anything.
    pub sudo_user: Option<String>,
    /// The process.
    pub pid: u32,
}

impl Actor {
    /// This process.
    fn this() -> Actor {
        let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|uid| uid.trim().parse().ok());
        Actor {
            // SAFETY: no arguments, no effects.
            uid: unsafe { libc::getuid() },
            // -1 where nobody logged in.
            login_uid: login.filter(|uid| *uid != u32::MAX),
            sudo_user: std::env::var("SUDO_USER").ok().map(|user| cut(&user, 64)),
            pid: std::process::id(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.sudo_user, self.login_uid) {
            (Some(user), _) => f.pad(user),
            (None, Some(login)) if login != self.uid => f.pad(&format!("uid {login}")),
            _ if self.uid == 0 => f.pad("root"),
            _ => f.pad(&format!("uid {}", self.uid)),
        }
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970. Of a commit the same as in the host's registry.
    pub unix_time: u64,
    /// What was to be done.
    pub verb: Verb,
    /// How it ended.
    pub outcome: Outcome,
    /// The generation that it made; none where it failed, or made none.
    pub generation: Option<u32>,
    /// The policy that ran after it, as far as is known.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// The policy that ran before, as `name version`.
    pub from: Option<String>,
    /// The policy's binary.
    pub binary: Option<Binary>,
    /// The policy's arguments.
    pub args: Vec<String>,
    /// Who did it.
    pub by: Actor,
    /// How many columns and queues had which fate.
    pub plan: BTreeMap<String, u32>,
    /// Was the scheduler detached and attached again?
    pub reattached: bool,
    /// How long each step took.
    pub timings: Timings,
    /// The error's words, where it failed.
    pub message: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: generations count from 1 in each boot.
    pub boot_id: String,
    /// `uname -r`
    pub kernel: String,
}

impl Entry {
    fn new(verb: Verb, outcome: Outcome) -> Entry {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_string();
        Entry {
            unix_time: unix_time(),
            verb,
            outcome,
            generation: None,
            policy: String::new(),
            version: String::new(),
            from: None,
            binary: None,
            args: Vec::new(),
            by: Actor::this(),
            plan: BTreeMap::new(),
            reattached: false,
            timings: Timings::default(),
            message: None,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
        }
    }

    /// A commit: what the registry has of it, and what the command reports.
    pub(crate) fn commit(generation: &Generation, slot: Option<&SlotInfo>, report: &Report) -> Entry {
        let mut plan = BTreeMap::new();
        let fates = report.columns.iter().map(|c| c.fate.clone());
        let queues = report.queues.iter().map(|q| format!("queue {}", q.fate));
        fates.chain(queues).for_each(|fate| *plan.entry(fate).or_insert(0) += 1);
        Entry {
            unix_time: generation.unix_time,
            generation: Some(generation.number),
            policy: generation.policy.clone(),
            version: generation.version.clone(),
            from: report.from.clone(),
            binary: slot.and_then(|s| s.binary.clone()),
            args: slot.map_or(Vec::new(), |s| bounded(s.args.get(1..).unwrap_or_default())),
            plan,
            reattached: report.reattached,
            timings: report.timings,
            ..Entry::new(generation.kind.into(), Outcome::Done)
        }
    }

    /// A commit of which only the registry knows.
    pub fn of_registry(generation: &Generation) -> Entry {
        Entry {
            unix_time: generation.unix_time,
            generation: Some(generation.number),
            policy: generation.policy.clone(),
            version: generation.version.clone(),
            by: Actor::default(),
            ..Entry::new(generation.kind.into(), Outcome::Done)
        }
    }

    /// The end of a host.
    pub(crate) fn stop(policy: Option<&str>, detach_ns: u64) -> Entry {
        let timings = Timings { detach_ns, total_ns: detach_ns, ..Timings::default() };
        Entry { from: policy.map(str::to_string), timings, ..Entry::new(Verb::Stop, Outcome::Done) }
    }

    /// The kernel took the host off.
    pub(crate) fn ejected(policy: &str, why: &str) -> Entry {
        Entry {
            from: Some(policy.to_string()),
            message: Some(cut(why, LONGEST)),
            by: Actor::default(),
            ..Entry::new(Verb::Eject, Outcome::Failed)
        }
    }

    /// Something that did not come to a commit.
    pub(crate) fn failed(verb: Verb, error: &Error) -> Entry {
        Entry { message: Some(cut(&error.to_string(), LONGEST)), ..Entry::new(verb, Outcome::Failed) }
    }

    /// With the policy's binary and the arguments that it was given.
    pub(crate) fn of_policy(self, binary: Option<&Binary>, args: &[String]) -> Entry {
        Entry { binary: binary.cloned(), args: bounded(args), ..self }
    }

    /// Is it the same commit as that of the registry?
    pub fn is(&self, generation: &Generation) -> bool {
        self.generation == Some(generation.number) && self.unix_time == generation.unix_time
    }
}

/// Write an entry, waiting for a moment at most. What went wrong, for a warning.
pub(crate) fn note(entry: Entry) -> Option<String> {
    let (done, wait) = mpsc::channel();
    // A disk that does not answer must not hold up who waits for the report.
    let thread = thread::Builder::new().name("history".to_string());
    let spawned = thread.spawn(move || {
        let _ = done.send(History::new().append(&entry).map_err(|e| e.to_string()));
    });
    let said = match spawned {
        Ok(_) => wait.recv_timeout(AT_MOST).unwrap_or_else(|_| Err("the disk does not answer".to_string())),
        Err(e) => Err(e.to_string()),
    };
    let why = said.err()?;
    log::debug!("history: {why}");
    Some(format!("the history has no entry of this: {why}. The scheduler does not depend on it"))
}

/// The first of the arguments, as many as fit.
fn bounded(args: &[String]) -> Vec<String> {
    let mut left = LONGEST;
    let mut fits = |arg: &&String| {
        let fits = arg.len() <= left;
        left = left.saturating_sub(arg.len());
        fits
    };
    args.iter().take_while(&mut fits).take(64).cloned().collect()
}

/// At most so many bytes of a text, and no half of a character.
fn cut(text: &str, at_most: usize) -> String {
    let end = (0..=at_most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(number: u32) -> Entry {
        Entry { generation: Some(number), policy: "p".into(), ..Entry::new(Verb::Swap, Outcome::Done) }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("größer", 3), "gr");
        assert_eq!(cut("größer", 4), "grö");
        assert_eq!(cut("ab", 9), "ab");
        let args: Vec<String> = (0..100).map(|n| format!("{n:0100}")).collect();
        assert!(bounded(&args).concat().len() <= LONGEST);
    }

    #[test]
    fn who_did_it_is_named_by_what_is_known() {
        let by = Actor { uid: 0, login_uid: None, sudo_user: None, pid: 1 };
        assert_eq!(by.to_string(), "root");
        assert_eq!(Actor { login_uid: Some(1000), ..by.clone() }.to_string(), "uid 1000");
        assert_eq!(Actor { sudo_user: Some("ada".into()), login_uid: Some(1000), ..by }.to_string(), "ada");
    }
}

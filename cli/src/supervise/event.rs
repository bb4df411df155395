//! What the supervisor has to say: a line of text each, or a document of JSON.

use std::fmt;

use scx_upgrade_engine::observe::ejection::Ejection;
use scx_upgrade_engine::observe::ejection::Kind;
use scx_upgrade_engine::observe::ejection_trace::TRACEPOINT;
use scx_upgrade_engine::observe::report::Report;
use serde::Serialize;

/// How often the kernel's state is read, ms.
pub const LOOK_MS: u64 = 50;

/// See the module.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A host runs, and is watched from now on.
    Watching {
        policy: String,
        generation: u32,
        /// How an ejection would be noticed.
        by: Notice,
    },
    /// After a boot, the policy was started that ran well before.
    Started { report: Box<Report> },
    /// The kernel took the host off.
    Ejected {
        ejection: Ejection,
        /// Did the kernel's tracepoint tell?
        told: bool,
    },
    /// Somebody wanted that.
    LeftAlone { kind: Kind },
    /// The policy's own process has ended. The policy runs on.
    ProcessEnded { policy: String, pid: u32 },
    /// Another one was started in its place.
    ProcessStarted { policy: String, pid: u32 },
    /// It runs again.
    Recovered {
        /// From when it was noticed, ms.
        after_ms: Option<u64>,
        report: Box<Report>,
    },
}

/// How an ejection is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The kernel's tracepoint tells.
    Tracepoint,
    /// The kernel's state is read every [`LOOK_MS`].
    Polling,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Tracepoint => write!(f, "the kernel's tracepoint {TRACEPOINT} tells of an ejection"),
            Notice::Polling => {
                write!(f, "this kernel has no tracepoint {TRACEPOINT}, its state is read every {LOOK_MS} ms")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Watching { policy, generation, by } => {
                write!(f, "watching {policy}, generation {generation}: {by}")
            }
            Event::Started { report } => {
                write!(f, "started {}, which ran well before, as generation {}", report.to, report.generation)
            }
            Event::Ejected { ejection: Ejection { kind, reason, policy, generation, .. }, .. } => {
                write!(f, "the kernel took off {policy}, generation {generation} ({kind}): {reason}")
            }
            Event::LeftAlone { kind } => {
                write!(f, "that was wanted ({kind}): left alone until someone attaches it again")
            }
            Event::ProcessEnded { policy, pid } => {
                write!(f, "process {pid} of {policy} has ended: the policy runs on without its statistics")
            }
            Event::ProcessStarted { policy, pid } => {
                write!(f, "process {pid} of {policy} was started in its place")
            }
            Event::Recovered { after_ms, report } => {
                write!(f, "{} is running again, as generation {}", report.to, report.generation)?;
                match after_ms {
                    Some(ms) => write!(f, ", {ms} ms after that was noticed"),
                    None => Ok(()),
                }
            }
        }
    }
}

//! What a swap did and how long each step of it took.

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Plan;
use state_migrate::QueueRow;
use state_migrate::Row;

use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::sweep::Swept;

/// Nanoseconds of each step, in the order of the swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Read the policy's object.
    pub open_ns: u64,
    /// Plan against the resident layout.
    pub plan_ns: u64,
    /// Augmented BTF, libbpf, verifier.
    pub load_ns: u64,
    /// Queues, programs of the idle slot, plan, image of new records.
    pub prepare_ns: u64,
    /// The store.
    pub commit_ns: u64,
    /// The grace period after it.
    pub settle_ns: u64,
    /// The walk over all tasks; 0 if the plan has nothing to apply.
    pub sweep_ns: u64,
    /// Handing over the tasks on queues that the new policy does not name.
    pub hand_over_ns: u64,
    /// The store that marks the generation complete.
    pub close_ns: u64,
    /// How long no policy ran, in a rollback by conversions of the author's own: see `quiesce.rs`. 0 in any other.
    #[serde(default)]
    pub hold_ns: u64,
    /// Detach, where it took a reattach.
    #[serde(default)]
    pub detach_ns: u64,
    /// Attach, where the host was started, or it took a reattach.
    pub attach_ns: u64,
    /// From the beginning of the detach until the kernel said `enabled`: the time that tasks were on the default
    /// scheduler, and on the way there and back.
    #[serde(default)]
    pub gap_ns: u64,
    /// From the first step to the last.
    pub total_ns: u64,
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// How the generation came to be.
    pub kind: Kind,
    /// Its number.
    pub generation: u32,
    /// Slot that it runs in.
    pub slot: u8,
    /// The policy that ran before, as `name version`.
    pub from: Option<String>,
    /// The policy that runs now.
    pub to: String,
    /// Was the scheduler detached and attached again?
    #[serde(default)]
    pub reattached: bool,
    /// What a snapshot brought, where one was restored.
    #[serde(default)]
    pub restored: Option<Restored>,
    /// Columns of either policy, and what became of them.
    pub columns: Vec<Row>,
    /// Queues of either policy, and what became of them.
    #[serde(default)]
    pub queues: Vec<QueueRow>,
    /// What the sweep did, for each scope that the plan has steps for.
    pub swept: Vec<Swept>,
    /// Tasks handed over from queues that the new policy does not name, by the host's dispatch or by the swap.
    pub tasks_handed_over: u64,
    /// Lost tasks that the kernel re-enqueued: see [`crate::host::requeue`].
    #[serde(default)]
    pub tasks_rescued: u64,
    /// How long it took.
    pub timings: Timings,
    /// When it was committed: `CLOCK_MONOTONIC`, ns. 0 where a host was started, and from a policy that was built before
    /// this was told.
    #[serde(default)]
    pub committed_at_ns: u64,
    /// What went wrong beside the scheduler, in words: the history could not be written.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Report {
    /// What the sweep of a scope did, if there was one.
    pub fn swept(&self, scope: &str) -> Option<&Swept> {
        self.swept.iter().find(|s| s.scope == scope)
    }

    /// What the plan did to columns. Of a scope that it has no steps for the sweep is not told: it changed nothing.
    pub(crate) fn tell(&mut self, plan: &Plan) {
        self.columns = plan.rows();
        let has_steps =
            |scope: &str| plan.steps.iter().any(|(s, steps)| s.to_string() == scope && !steps.is_empty());
        self.swept.retain(|swept| has_steps(&swept.scope));
    }

    pub(crate) fn new(generation: &Generation, from: Option<String>) -> Report {
        Report {
            kind: generation.kind,
            generation: generation.number,
            slot: generation.slot,
            from,
            to: generation.title(),
            reattached: false,
            restored: None,
            columns: Vec::new(),
            queues: Vec::new(),
            swept: Vec::new(),
            tasks_handed_over: 0,
            tasks_rescued: 0,
            timings: Timings::default(),
            committed_at_ns: 0,
            warnings: Vec::new(),
        }
    }
}

/// What was restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restored {
    /// The policy that the snapshot is of, as `name version`.
    pub saved_by: String,
    /// What became of each column that is saved or wanted: `carried`, `converted`, `dropped` if the policy has no column
    /// for it, `defaulted` if nothing was saved for it, `refused`, `skipped` if its value is true only at its moment.
    pub columns: Vec<Row>,
    /// By scope: records.
    pub scopes: Vec<RestoredScope>,
    /// Is the snapshot of another boot? Its tasks mean nothing then.
    pub other_boot: bool,
}

/// What was restored of one scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoredScope {
    /// `task`, `cgroup`, …
    pub scope: String,
    /// Records that got values.
    pub restored: u64,
    /// Records that are no more: the task ended, the cgroup was removed.
    pub gone: u64,
}

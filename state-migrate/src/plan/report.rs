//! All of a plan at once, for people and for scripts.

use serde::{Deserialize, Serialize};

use super::{ColumnPlan, Draft, Fate, Plan, PlanError, QueueRow, queue_rows};
use crate::layout::{Layout, ScopeLayout};
use crate::schema::{Schema, Scope};

/// What becomes of one column, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The scope it is of.
    pub scope: Scope,
    /// Its name.
    pub column: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The fate's name, or `refused`.
    pub fate: String,
    /// The column that its value is made of, as `name: type`, if that is another.
    pub from: Option<String>,
    /// How, or why.
    pub reason: Option<String>,
}

impl From<&ColumnPlan> for Row {
    fn from(c: &ColumnPlan) -> Row {
        let how = match &c.fate {
            Fate::Converted(how) if !how.is_empty() => Some(how.clone()),
            _ => None,
        };
        let reason = [how, c.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Row {
            scope: c.scope,
            column: c.column.clone(),
            ty: c.ty.to_string(),
            fate: c.fate.to_string(),
            from: c.from.clone(),
            reason: (!reason.is_empty()).then_some(reason),
        }
    }
}

impl Plan {
    /// The columns as text, in the order of the plan.
    pub fn rows(&self) -> Vec<Row> {
        self.columns.iter().map(Row::from).collect()
    }
}

/// Something that stands against a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The scope, if it is about one.
    pub scope: Option<Scope>,
    /// The columns, or the parts of them, that it is about; none if it is about the whole.
    pub columns: Vec<String>,
    /// Why, and what to do.
    pub reason: String,
}

impl From<&PlanError> for Refusal {
    fn from(error: &PlanError) -> Refusal {
        let reason = error.to_string();
        let (scope, columns) = match error {
            PlanError::TypeChanged { scope, field, .. }
            | PlanError::Narrower { scope, field, .. }
            | PlanError::UnitMismatch { scope, field, .. }
            | PlanError::UnitUnknown { scope, field, .. }
            | PlanError::WellKnownType { scope, field, .. }
            | PlanError::Conversion { scope, field, .. } => (Some(*scope), vec![field.clone()]),
            PlanError::Full { scope, unplaced, .. } => (Some(*scope), unplaced.clone()),
            PlanError::TooManySteps { scope, .. } | PlanError::NoRecord { scope } => {
                (Some(*scope), Vec::new())
            }
            PlanError::SlotTaken { .. } | PlanError::Several(_) | PlanError::Layout(_) => (None, Vec::new()),
        };
        Refusal { scope, columns, reason }
    }
}

/// The bytes of one scope's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The scope.
    pub scope: Scope,
    /// All of it, the header included.
    pub record_size: u32,
    /// Bytes of the header and of the columns there were before the plan.
    pub used: u32,
    /// Bytes that were free before the plan, not all in one piece.
    pub free: u32,
    /// Bytes of the columns that the plan adds.
    pub needed: u32,
}

impl Capacity {
    pub(super) fn of(scope: Scope, layout: &ScopeLayout, needed: u32) -> Capacity {
        let (record_size, free) = (layout.record_size, layout.free_bytes());
        Capacity { scope, record_size, used: record_size - free, free, needed }
    }
}

/// A plan as far as it goes, with all that stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// What becomes of each column that the new or the running policy names.
    pub rows: Vec<Row>,
    /// All that stands against the plan.
    pub refused: Vec<Refusal>,
    /// What becomes of the queues. A layout knows none: who does fills this in with [`queue_rows`].
    #[serde(default)]
    pub queues: Vec<QueueRow>,
    /// The records of the scopes that the new policy has state in.
    pub capacity: Vec<Capacity>,
    /// The plan, if nothing stands against it.
    pub plan: Option<Plan>,
}

/// As [`super::plan_anew()`], and goes on where that stops.
pub fn plan_report_anew(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) -> PlanReport {
    report(Draft::make(resident, running, schema, slot, false), schema)
}

/// As [`super::plan()`], and goes on where that stops.
pub fn plan_report(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) -> PlanReport {
    report(Draft::new(resident, running, schema, slot), schema)
}

fn report(draft: Draft, schema: &Schema) -> PlanReport {
    let refused: Vec<Refusal> = draft.errors.iter().map(Refusal::from).collect();
    let mut rows = draft.plan.rows();
    for (scope, columns) in &schema.scopes {
        for column in columns {
            // A refusal may name a part of the column.
            let about = |name: &String| name.split(['.', '[']).next() == Some(&column.name);
            let found = refused.iter().find(|r| r.scope == Some(*scope) && r.columns.iter().any(about));
            rows.extend(found.map(|refusal| Row {
                scope: *scope,
                column: column.name.clone(),
                ty: column.ty.to_string(),
                fate: "refused".to_owned(),
                from: None,
                reason: Some(refusal.reason.clone()),
            }));
        }
    }
    // What becomes of the old column of that name is not settled.
    let refused_names: Vec<_> =
        rows.iter().filter(|r| r.fate == "refused").map(|r| (r.scope, r.column.clone())).collect();
    rows.retain(|r| r.fate != "dropped" || !refused_names.contains(&(r.scope, r.column.clone())));
    rows.sort_by_key(|r| r.scope);
    let plan = refused.is_empty().then_some(draft.plan);
    PlanReport { rows, refused, queues: Vec::new(), capacity: draft.capacity, plan }
}

/// What a swap from a policy with the `old` schema to one with `new` would do, in a host with records of `sizes`:
/// needs no host. What stands against `old` itself is reported alone.
pub fn check(old: &Schema, new: &Schema, sizes: &[(Scope, u32)]) -> PlanReport {
    let first = plan_report(&Layout::new(sizes), None, old, 0);
    match &first.plan {
        Some(plan) => PlanReport {
            queues: queue_rows(&old.queues, &[], &new.queues),
            ..plan_report(&plan.layout, Some(0), new, 1)
        },
        None => first,
    }
}

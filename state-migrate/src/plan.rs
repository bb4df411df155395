//! What one swap does to the columns.
//!
//! Which column a field of the new policy becomes is decided by the columns of the running policy, in this order:
//!
//! 1. One of its name and type, of no other unit, and with the same rule or where the field has none: the column is
//!    *carried*, by identity. So a rule that was applied once is not applied again, and its tag can stay or go. If only
//!    its type is another, the type is *converted*.
//! 2. The one that `scx:from` names: the field is *converted* from it by its rule.
//! 3. One of its name. Where `scx:from` names none that there is, the renaming was done by an earlier version, and
//!    unless that is known to have had another rule, the rest of the rule too; where the column has the field's unit
//!    already, so was the rescaling. What is done is left out, and the type is converted if it changes.
//!
//! Where the running policy has none, the retained columns of the other slots are asked in the same way, the newest
//! first, and what says that there is no way is not an error then. What finds no column is *defaulted*.
//!
//! A column whose type or meaning changes gets a new place; the old one stays, for a rollback.
//!
//! Units are compared as text. Most columns declare none, and where neither side does, or both are versions of one policy
//! ([`Schema::policy`]), a side without a unit is taken to mean the same. Between two policies a unit that only one side
//! declares is an error, unless a scale or a conversion says how to get there: the other may count by another clock.

mod back;
mod error;
mod place;
mod queues;
mod report;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::back::plan_back;
pub use self::error::{PlanError, Retained};
pub use self::queues::{QueueRow, queue_rows};
pub use self::report::{Capacity, PlanReport, Refusal, Row, check, plan_report, plan_report_anew};

use self::place::place_all;
use self::resolve::{Origin, Policies, resolve};
use crate::convert::{Op, Pair, fill, lower, merge};
use crate::layout::{Layout, Placed, ScopeLayout, Source};
use crate::rule::Rule;
use crate::schema::{Column, Schema, Scope};
use crate::step::{Call, Linear, MAX_STEPS, Step};
use crate::types::Type;

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It stays where it is, with its value.
    Carried,
    /// Its value is made of that of another column; how.
    Converted(String),
    /// It is new and starts with its default.
    Defaulted,
    /// The running policy names it and the new one does not. It stays in the record while a slot can go back to it.
    Dropped,
    /// The running policy does not name it, another slot's did, and it is as that one left it.
    Retained,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fate::Carried => "carried",
            Fate::Converted(_) => "converted",
            Fate::Defaulted => "defaulted",
            Fate::Dropped => "dropped",
            Fate::Retained => "retained",
        })
    }
}

/// What becomes of one column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPlan {
    /// The scope it is of.
    pub scope: Scope,
    /// Its name.
    pub column: String,
    /// Its type.
    pub ty: Type,
    /// What becomes of it.
    pub fate: Fate,
    /// Where it starts, in bytes from the start of the record.
    pub offset: u32,
    /// The column that its value is made of, as `name: type`, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why so, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for ColumnPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}: {} at {}", self.fate, self.scope, self.column, self.ty, self.offset)
    }
}

/// What one swap does to the columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The resident layout after this plan.
    pub layout: Layout,
    /// What becomes of each column that the new or the running policy names.
    pub columns: Vec<ColumnPlan>,
    /// The steps that bring an existing record up to date; only scopes that need any. They read only what the
    /// running policy or a retained one left, and write only what nothing else reads.
    pub steps: BTreeMap<Scope, Vec<Step>>,
}

impl Plan {
    /// The slot of the policy whose own conversions the steps call, if any do. It is one for all of them.
    pub fn caller(&self) -> Option<u32> {
        self.steps.values().flatten().find_map(|step| match step {
            Step::Call(call) => Some(call.slot),
            _ => None,
        })
    }
}

/// Plans the swap from the `running` slot's policy (`None`: there is none) to one with `schema` in `slot`, which must
/// have been evicted. All that stands against it is in the error.
///
/// The host applies the steps to each existing record, and starts new ones from [`Layout::image`].
pub fn plan(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) -> Result<Plan, PlanError> {
    Draft::new(resident, running, schema, slot).finish()
}

/// As [`plan()`], but nothing is carried: every column of the new policy starts with its default. One that the running
/// policy names too keeps its place, so its value there goes as well. What could not be carried is no error then.
pub fn plan_anew(
    resident: &Layout,
    running: Option<u32>,
    schema: &Schema,
    slot: u32,
) -> Result<Plan, PlanError> {
    Draft::make(resident, running, schema, slot, false).finish()
}

/// A plan, as far as it goes, and all that stands against it.
struct Draft {
    /// Is anything to be carried?
    carry: bool,
    plan: Plan,
    errors: Vec<PlanError>,
    capacity: Vec<Capacity>,
}

/// A column that needs a place, and what its value is made of.
struct New<'a> {
    column: &'a Column,
    source: Option<(Box<Placed>, Rule)>,
    reason: Option<String>,
}

impl Draft {
    fn new(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) -> Draft {
        Draft::make(resident, running, schema, slot, true)
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        match self.errors.len() {
            0 => Ok(self.plan),
            1 => Err(self.errors.remove(0)),
            _ => Err(PlanError::Several(self.errors)),
        }
    }

    fn make(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32, carry: bool) -> Draft {
        let plan = Plan { layout: resident.clone(), columns: Vec::new(), steps: BTreeMap::new() };
        let mut draft = Draft { carry, plan, errors: Vec::new(), capacity: Vec::new() };
        if let Err(error) = resident.check() {
            draft.errors.push(error.into());
            return draft;
        }
        let taken = |s: &ScopeLayout| s.columns.iter().any(|c| c.slots.contains(&slot));
        if running == Some(slot) || resident.scopes.values().any(taken) {
            draft.errors.push(PlanError::SlotTaken { slot });
            return draft;
        }
        for (&scope, columns) in &schema.scopes {
            if let Err(error) = draft.scope(scope, running, columns, schema, slot) {
                draft.errors.push(error);
            }
        }
        if !schema.policy.is_empty() {
            draft.plan.layout.policies.insert(slot, schema.policy.clone());
        }
        for (&scope, layout) in &draft.plan.layout.scopes {
            let named = layout.columns.iter().filter(|c| running.is_some_and(|slot| c.slots.contains(&slot)));
            for column in named.filter(|c| !c.slots.contains(&slot)) {
                let heir = |c: &&Placed| {
                    c.slots.contains(&slot)
                        && c.source.as_ref().is_some_and(|s| s.ids.first() == Some(&column.id))
                };
                let heir = layout.columns.iter().find(heir);
                let reason = heir.map(|c| format!("its value goes on in `{}`: {}", c.name, c.ty));
                draft.plan.columns.push(ColumnPlan { reason, ..row(scope, column, Fate::Dropped) });
            }
        }
        draft
    }

    fn scope(
        &mut self,
        scope: Scope,
        running: Option<u32>,
        columns: &[Column],
        schema: &Schema,
        slot: u32,
    ) -> Result<(), PlanError> {
        let layout = self.plan.layout.scopes.get_mut(&scope).ok_or(PlanError::NoRecord { scope })?;
        let (mut new, mut kept, mut rows) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        let (mut ops, mut steps) = (Vec::new(), Vec::new());
        let policies = Policies { names: &self.plan.layout.policies, running, new: schema };
        for column in columns {
            match resolve(scope, layout, &policies, column) {
                Ok(Origin::Keep { id, reason }) => {
                    let Some(placed) = layout.columns.iter_mut().find(|c| c.id == id) else { continue };
                    keep(placed, column, schema, slot);
                    kept.insert(id);
                    if !self.carry {
                        fill(placed.offset, &placed.ty.initial(placed.default), &mut ops);
                        rows.insert(&column.name, New::anew(column).row(scope, placed));
                        continue;
                    }
                    let fate = if reason.is_some() { Fate::Retained } else { Fate::Carried };
                    rows.insert(&column.name, ColumnPlan { reason, ..row(scope, placed, fate) });
                }
                Ok(_) if !self.carry => new.push(New::anew(column)),
                // What is wrong with the column itself stays an error.
                Err(e) if !self.carry && !matches!(e, PlanError::WellKnownType { .. }) => {
                    new.push(New::anew(column));
                }
                Ok(Origin::Derive { source, rule, reason }) => {
                    new.push(New { column, source: Some((source, rule)), reason });
                }
                Ok(Origin::Default { reason }) => new.push(New { column, source: None, reason }),
                Err(error) => self.errors.push(error),
            }
        }
        let needed = new.iter().fold(0u32, |sum, n| sum.saturating_add(n.column.ty.size()));
        self.capacity.push(Capacity::of(scope, layout, needed));
        let placed = place_all(scope, layout, running, &new, &kept, slot)?;
        for (new, at) in new.iter().zip(&placed) {
            let mut own = Vec::new();
            derive(new, at, slot, &mut own, &mut steps);
            ops.extend(own);
            rows.insert(&new.column.name, new.row(scope, at));
        }
        self.plan.columns.extend(columns.iter().filter_map(|c| rows.remove(&c.name)));
        let mut all = merge(ops);
        // Calls come last: they find the initial value in place.
        all.extend(steps);
        let entries = all.iter().map(Step::entries).sum();
        if entries > MAX_STEPS {
            return Err(PlanError::TooManySteps { scope, steps: entries });
        }
        if !all.is_empty() {
            self.plan.steps.insert(scope, all);
        }
        Ok(())
    }
}

/// Lets the slot name a resident column.
fn keep(placed: &mut Placed, column: &Column, schema: &Schema, slot: u32) {
    placed.slots.insert(slot);
    placed.default = column.default;
    if placed.unit.is_none() {
        placed.unit = column.unit().map(str::to_owned);
    }
    if let Some(source) = &mut placed.source
        && source.rule.convert == column.rule.convert
        && column.rule.convert.as_ref().is_none_or(|c| takes(schema, &c.program) == Some(&source.ty))
    {
        source.declared.insert(slot);
    }
    if !placed.rule.derives() {
        placed.rule = column.rule.clone();
    }
}

/// What a conversion of the policy's takes. What it gives, and its inverse, agree with that and with the column already:
/// the schema saw to it.
fn takes<'s>(schema: &'s Schema, program: &str) -> Option<&'s Type> {
    schema.conversions.get(program).map(|signature| &signature.from)
}

/// The stores that give a new column its first value, and the calls.
fn derive(new: &New, at: &Placed, slot: u32, ops: &mut Vec<Op>, calls: &mut Vec<Step>) {
    if let Some((source, rule)) = &new.source {
        if let Some(convert) = &rule.convert {
            calls.push(Step::Call(Call {
                program: convert.program.clone(),
                slot,
                from: source.offset,
                from_size: source.ty.size(),
                to: at.offset,
                to_size: at.ty.size(),
            }));
        } else {
            let linear = rule.scale.as_ref().map_or(Linear::IDENTITY, Linear::forward);
            let pair = Pair { from: &source.ty, from_at: source.offset, to: &at.ty, to_at: at.offset };
            lower(pair, &linear, ops);
        }
    }
    fill(at.offset, &at.ty.initial(at.default), ops);
}

impl<'a> New<'a> {
    /// One that has its default because nothing is carried.
    fn anew(column: &'a Column) -> New<'a> {
        New { column, source: None, reason: Some("anew".to_owned()) }
    }

    fn source(&self, kept: &BTreeSet<u64>, slot: u32) -> Option<Source> {
        let (source, rule) = self.source.as_ref()?;
        let mut ids = vec![source.id];
        ids.extend(source.source.iter().flat_map(|s| &s.ids));
        Some(Source {
            ids,
            name: source.name.clone(),
            ty: source.ty.clone(),
            rule: rule.clone(),
            forked: kept.contains(&source.id),
            declared: BTreeSet::from([slot]),
        })
    }

    fn row(&self, scope: Scope, at: &Placed) -> ColumnPlan {
        let Some((source, rule)) = &self.source else {
            let value = at.default.filter(|d| *d != 0).map(|d| format!("starts as {d}"));
            let reason = [self.reason.clone(), value].into_iter().flatten().collect::<Vec<_>>().join("; ");
            let reason = (!reason.is_empty()).then_some(reason);
            return ColumnPlan { reason, ..row(scope, at, Fate::Defaulted) };
        };
        let mut parts = Vec::new();
        if source.name != at.name {
            parts.push("renamed".to_owned());
        }
        if source.ty != at.ty {
            parts.push(format!("{} to {}", source.ty, at.ty));
        }
        parts.extend(rule.scale.as_ref().map(|s| Linear::forward(s).to_string()));
        parts.extend(rule.convert.as_ref().map(|c| match &c.inverse {
            Some(inverse) => format!("by `{}`, and back by `{inverse}`", c.program),
            None => format!("by `{}`, with no way back", c.program),
        }));
        let from = Some(format!("{}: {}", source.name, source.ty));
        let fate = Fate::Converted(parts.join(", "));
        ColumnPlan { from, reason: self.reason.clone(), ..row(scope, at, fate) }
    }
}

fn row(scope: Scope, column: &Placed, fate: Fate) -> ColumnPlan {
    ColumnPlan {
        scope,
        column: column.name.clone(),
        ty: column.ty.clone(),
        fate,
        offset: column.offset,
        from: None,
        reason: None,
    }
}

/// Slots, for messages.
fn slots(slots: &BTreeSet<u32>) -> String {
    let names: Vec<String> = slots.iter().map(u32::to_string).collect();
    format!("slot{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

//! What one swap does to the columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::layout::{Layout, Placed, ScopeLayout};
use crate::schema::{Column, Schema, Scope};
use crate::types::Type;

/// The most steps that a plan may have in one scope.
pub const MAX_STEPS: usize = 64;

/// What becomes of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It stays where it is, with its value.
    Carried,
    /// It is new and starts with its default.
    Defaulted,
    /// The running policy names it and the new one does not. It stays in the record while a slot can go back to it.
    Dropped,
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
}

/// One store into a record. It must be done in exactly this size: others may write the neighbouring bytes meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where to store, in bytes from the start of the record; a multiple of `size`.
    pub offset: u32,
    /// How many bytes: 1, 2, 4 or 8.
    pub size: u32,
    /// What to store; the low `size` bytes.
    pub value: u64,
}

/// What one swap does to the columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The resident layout after this plan.
    pub layout: Layout,
    /// What becomes of each column that the new or the running policy names.
    pub columns: Vec<ColumnPlan>,
    /// The stores that bring an existing record up to date, by offset; only scopes that need any.
    pub steps: BTreeMap<Scope, Vec<Step>>,
}

/// A column that is kept for a rollback only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Its name.
    pub column: String,
    /// Its size in bytes.
    pub size: u32,
    /// The slots that it is kept for.
    pub slots: BTreeSet<u32>,
}

/// Why a swap cannot be planned. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A field has another type than in the running policy.
    #[error(
        "{scope}.{field}: its type changes from `{old}` to `{new}`, and no rule carries its value over; \
         keep the type, or give the new field a new name"
    )]
    TypeChanged {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// Its type in the running policy.
        old: Box<Type>,
        /// Its type in the new policy.
        new: Box<Type>,
    },
    /// The new columns do not fit into the record.
    #[error(
        "the {scope} record is full: {} fit in nowhere, {missing} bytes are missing ({free} are free, in pieces); {}",
        list(unplaced),
        advice(retained)
    )]
    Full {
        /// The scope of the record.
        scope: Scope,
        /// The columns without a place.
        unplaced: Vec<String>,
        /// Their bytes.
        missing: u32,
        /// Bytes that no column takes, once those that fit are placed.
        free: u32,
        /// Columns that are kept for a rollback only.
        retained: Vec<Retained>,
    },
    /// The new columns need more stores than the host makes at once.
    #[error(
        "the new {scope} columns need {steps} stores a record, the host makes at most {MAX_STEPS} in one swap; \
         make new arrays smaller, or bring the columns in over several swaps"
    )]
    TooManySteps {
        /// The scope of the columns.
        scope: Scope,
        /// The stores needed.
        steps: usize,
    },
    /// The host keeps no record for a scope that the schema uses.
    #[error("the host keeps no {scope} record; drop `struct {}` from the policy, or reattach with a newer host", scope.struct_name())]
    NoRecord {
        /// The scope.
        scope: Scope,
    },
    /// The target slot is in use.
    #[error("slot {slot} is still in use; evict its policy first, or load into another slot")]
    SlotTaken {
        /// The slot.
        slot: u32,
    },
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn advice(retained: &[Retained]) -> String {
    if retained.is_empty() {
        return "make the state smaller, or reattach with a host that has larger records".to_owned();
    }
    let columns: Vec<String> = retained
        .iter()
        .map(|r| {
            let slots: Vec<String> = r.slots.iter().map(u32::to_string).collect();
            format!("`{}` ({} bytes, slot {})", r.column, r.size, slots.join(" and "))
        })
        .collect();
    format!("kept for a rollback only, and free once their slots are evicted: {}", columns.join(", "))
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fate::Carried => "carried",
            Fate::Defaulted => "defaulted",
            Fate::Dropped => "dropped",
        })
    }
}

impl fmt::Display for ColumnPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}: {} at {}", self.fate, self.scope, self.column, self.ty, self.offset)
    }
}

/// Plans the swap to the policy of `schema` in `slot`, from the policy in the slot `running` if there is one.
///
/// `slot` must have been evicted from `resident`. A column that a slot of `resident` names and the schema too, by name
/// and type, is carried; the schema's default then holds for records made from now on.
pub fn plan(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) -> Result<Plan, PlanError> {
    let mut plan = Plan { layout: resident.clone(), columns: Vec::new(), steps: BTreeMap::new() };
    let taken = |s: &ScopeLayout| s.columns.iter().any(|c| c.slots.contains(&slot));
    if running == Some(slot) || resident.scopes.values().any(taken) {
        return Err(PlanError::SlotTaken { slot });
    }
    for (&scope, columns) in &schema.scopes {
        let layout = plan.layout.scopes.get_mut(&scope).ok_or(PlanError::NoRecord { scope })?;
        check_types(scope, layout, running, columns)?;
        let new: Vec<&Column> = columns.iter().filter(|c| !carry(layout, c, slot)).collect();
        let placed = place_all(scope, layout, running, &new, slot)?;
        let steps = steps(&placed);
        if steps.len() > MAX_STEPS {
            return Err(PlanError::TooManySteps { scope, steps: steps.len() });
        }
        for column in columns {
            let Some(at) = layout.columns.iter().find(|c| c.is(&column.name, &column.ty)) else { continue };
            let is_new = placed.iter().any(|p| p.is(&column.name, &column.ty));
            plan.columns.push(row(scope, at, if is_new { Fate::Defaulted } else { Fate::Carried }));
        }
        if !steps.is_empty() {
            plan.steps.insert(scope, steps);
        }
    }
    for (&scope, layout) in &resident.scopes {
        let named = schema.scopes.get(&scope).map_or(&[][..], Vec::as_slice);
        let dropped = layout.columns.iter().filter(|c| running.is_some_and(|slot| c.slots.contains(&slot)));
        let dropped = dropped.filter(|c| !named.iter().any(|n| c.is(&n.name, &n.ty)));
        plan.columns.extend(dropped.map(|c| row(scope, c, Fate::Dropped)));
    }
    Ok(plan)
}

fn row(scope: Scope, column: &Placed, fate: Fate) -> ColumnPlan {
    ColumnPlan { scope, column: column.name.clone(), ty: column.ty.clone(), fate, offset: column.offset }
}

/// The name of a column of the running policy keeps its type. This goes before carrying: a column that is retained
/// under that name in the new type holds an older policy's value, which must not take the place of the current one.
fn check_types(
    scope: Scope,
    layout: &ScopeLayout,
    running: Option<u32>,
    columns: &[Column],
) -> Result<(), PlanError> {
    let Some(running) = running else { return Ok(()) };
    for old in layout.columns.iter().filter(|c| c.slots.contains(&running)) {
        if let Some(new) = columns.iter().find(|c| c.name == old.name && c.ty != old.ty) {
            let (old, new) = (Box::new(old.ty.clone()), (&new.name, Box::new(new.ty.clone())));
            return Err(PlanError::TypeChanged { scope, field: new.0.clone(), old, new: new.1 });
        }
    }
    Ok(())
}

/// Lets the slot name a resident column; false if there is no such column.
fn carry(layout: &mut ScopeLayout, column: &Column, slot: u32) -> bool {
    let Some(resident) = layout.columns.iter_mut().find(|c| c.is(&column.name, &column.ty)) else {
        return false;
    };
    resident.slots.insert(slot);
    resident.default = column.default;
    true
}

/// Places new columns, the most aligned and then the largest first, and returns them with their places.
fn place_all(
    scope: Scope,
    layout: &mut ScopeLayout,
    running: Option<u32>,
    new: &[&Column],
    slot: u32,
) -> Result<Vec<Placed>, PlanError> {
    let mut order = new.to_vec();
    order.sort_by_key(|c| std::cmp::Reverse((c.ty.align(), c.ty.size())));
    let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
    for column in order {
        let Some(offset) = layout.place(&column.ty) else {
            unplaced.push(column);
            continue;
        };
        let column = Placed {
            name: column.name.clone(),
            ty: column.ty.clone(),
            default: column.default,
            offset,
            slots: BTreeSet::from([slot]),
        };
        layout.columns.push(column.clone());
        placed.push(column);
    }
    if unplaced.is_empty() {
        return Ok(placed);
    }
    let only_retained =
        |c: &&Placed| !c.slots.contains(&slot) && running.is_none_or(|r| !c.slots.contains(&r));
    let retained = layout.columns.iter().filter(only_retained).map(|c| Retained {
        column: c.name.clone(),
        size: c.ty.size(),
        slots: c.slots.clone(),
    });
    Err(PlanError::Full {
        scope,
        unplaced: unplaced.iter().map(|c| c.name.clone()).collect(),
        missing: unplaced.iter().fold(0, |sum, c| c.ty.size().saturating_add(sum)),
        free: layout.free_bytes(),
        retained: retained.collect(),
    })
}

/// The stores that write the defaults of new columns, padding inside structs included: all bytes of a new column are
/// its own, so its stores can be as large as its place allows.
fn steps(placed: &[Placed]) -> Vec<Step> {
    let mut steps = Vec::new();
    for column in placed {
        let bytes = column.ty.initial(column.default);
        let (mut at, mut rest) = (column.offset, bytes.as_slice());
        while !rest.is_empty() {
            let fits = |s: &u32| at.is_multiple_of(*s) && *s as usize <= rest.len();
            let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
            let (now, later) = rest.split_at(size as usize);
            let value = now.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
            steps.push(Step { offset: at, size, value });
            at = at.saturating_add(size);
            rest = later;
        }
    }
    steps.sort_unstable_by_key(|s| s.offset);
    steps
}

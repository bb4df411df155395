//! Why a swap cannot be planned.

use std::collections::BTreeSet;

use super::slots;
use crate::layout::LayoutError;
use crate::schema::Scope;
use crate::step::MAX_STEPS;
use crate::types::Type;

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
    /// The resident layout cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A field has another type than in the running policy.
    #[error(
        "{scope}.{field}: its type changes from `{old}` to `{new}`, and no rule carries its value over; \
         keep the type, write a conversion (`scx:convert`), or give the new field a new name"
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
    /// A field's type cannot hold all that the predecessor's can.
    #[error(
        "{scope}.{field}: its type changes from `{old}` to `{new}`, which cannot hold every value; \
         add `scx:saturate` to cut what does not fit, or keep a type that holds it"
    )]
    Narrower {
        /// The scope of the field.
        scope: Scope,
        /// The field, or the part of it.
        field: String,
        /// Its type in the running policy.
        old: String,
        /// Its type in the new policy.
        new: String,
    },
    /// A column counts something else than what its value would be made of.
    #[error(
        "{scope}.{field}: its unit is `{unit}`, that of {other} is `{other_unit}`; rescale it from there (`scx:scale`), \
         correct the unit, or give the field a new name"
    )]
    UnitMismatch {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// Its unit.
        unit: String,
        /// What it is compared with.
        other: String,
        /// The unit of that.
        other_unit: String,
    },
    /// Of a column and of the one of another policy that its value would be made of, only one declares what it counts.
    #[error(
        "{scope}.{field}: its unit is {}, that of `{other}` of {}, another policy, is {}, so the value may be of another \
         clock or size; declare the unit in both (`scx:unit`), say how to get there (`scx:scale`, by 1 if the values are \
         the same), or give the field a new name",
        declared(units[0].as_deref()),
        named(policy),
        declared(units[1].as_deref())
    )]
    UnitUnknown {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// The column that its value would be made of.
        other: String,
        /// The policy that has that column.
        policy: String,
        /// The units of the field and of that column. In a box: a result has room for its error also where there is none.
        units: Box<[Option<String>; 2]>,
    },
    /// A field with a well-known name is of another kind.
    #[error(
        "{scope}.{field}: a column of that well-known name is `{expected}` or another width of it, not `{ty}`; \
         change the type, or give the field another name"
    )]
    WellKnownType {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// Its type.
        ty: String,
        /// The type that holds all values of it.
        expected: &'static str,
    },
    /// A conversion of the author's own takes something else than what there is.
    #[error(
        "{scope}.{field}: its conversion `{program}` takes {}, and what it would get is `{old}`; correct the conversion, or \
         give the field a new name",
        taken(takes.as_deref())
    )]
    Conversion {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// The conversion.
        program: String,
        /// What it takes, if the policy has it.
        takes: Option<Box<Type>>,
        /// The column in the running policy.
        old: Box<Type>,
    },
    /// Several things stand against it.
    #[error("{}", .0.iter().map(PlanError::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<PlanError>),
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
    /// The plan needs more steps than the host makes at once.
    #[error(
        "the {scope} columns need {steps} steps a record, the host makes at most {MAX_STEPS} in one swap; \
         bring the changes in over several swaps, or make the structs that change simpler"
    )]
    TooManySteps {
        /// The scope of the columns.
        scope: Scope,
        /// The steps needed.
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

fn declared(unit: Option<&str>) -> String {
    unit.map_or_else(|| "not declared".to_owned(), |unit| format!("`{unit}`"))
}

fn named(policy: &str) -> &str {
    if policy.is_empty() { "a policy without a name" } else { policy }
}

fn taken(ty: Option<&Type>) -> String {
    ty.map_or_else(|| "nothing, since the policy has none of that name".to_owned(), |ty| format!("`{ty}`"))
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn advice(retained: &[Retained]) -> String {
    if retained.is_empty() {
        return "make the state smaller, because no host has larger records".to_owned();
    }
    let columns: Vec<String> =
        retained.iter().map(|r| format!("`{}` ({} bytes, {})", r.column, r.size, slots(&r.slots))).collect();
    format!("kept for a rollback only, and free once their slots are evicted: {}", columns.join(", "))
}

//! Which column a field of the new policy becomes.

use std::collections::BTreeMap;

use super::{PlanError, slots, takes};
use crate::convert;
use crate::convert::Why;
use crate::layout::{Placed, ScopeLayout};
use crate::rule::Rule;
use crate::schema::{Column, Schema, Scope};
use crate::step::Number;
use crate::types::Type;
use crate::well_known;

/// What a field becomes.
pub(super) enum Origin {
    /// A column that there is, as it is; with a reason if it is a retained one.
    Keep { id: u64, reason: Option<String> },
    /// A new column made of one that there is.
    Derive { source: Box<Placed>, rule: Rule, reason: Option<String> },
    /// A new column.
    Default { reason: Option<String> },
}

/// The policies that the columns of a layout belong to, and the new one.
pub(super) struct Policies<'a> {
    /// By slot, where they have a name.
    pub names: &'a BTreeMap<u32, String>,
    pub running: Option<u32>,
    pub new: &'a Schema,
}

/// What is known of the units of a column that there is and of the field that may become it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Units<'a> {
    /// They are the same, or nothing says that they are not.
    Agree,
    Differ,
    /// The column is another policy's, and only one side declares a unit.
    Unknown {
        policy: &'a str,
    },
}

impl<'a> Policies<'a> {
    /// Units are compared as text. Where only one side declares one, versions of one policy mean the same by the name: an
    /// author who declares a unit says what was counted before, and one who changes it says so by a scale or a new name.
    /// Nothing of the kind is known of another policy, which may count by another clock.
    fn units(&self, placed: &Placed, column: &Column) -> Units<'a> {
        match (placed.unit.as_deref(), column.unit()) {
            (None, None) => Units::Agree,
            (Some(old), Some(new)) if old == new => Units::Agree,
            (Some(_), Some(_)) => Units::Differ,
            _ => match self.other(placed) {
                Some(policy) => Units::Unknown { policy },
                None => Units::Agree,
            },
        }
    }

    /// The policy that a column has its value from, if it is another one than the new one: the running one, or, of a
    /// retained column, any of those that can be gone back to.
    fn other(&self, placed: &Placed) -> Option<&'a str> {
        let name = |slot: &u32| self.names.get(slot).map_or("", String::as_str);
        let running = self.running.filter(|slot| placed.slots.contains(slot));
        let mut policies = placed.slots.iter().filter(|slot| running.is_none_or(|r| r == **slot)).map(name);
        policies.find(|policy| *policy != self.new.policy)
    }
}

pub(super) fn resolve(
    scope: Scope,
    layout: &ScopeLayout,
    policies: &Policies,
    column: &Column,
) -> Result<Origin, PlanError> {
    check_well_known(scope, column)?;
    let running = policies.running;
    let (named, mut retained): (Vec<&Placed>, Vec<&Placed>) =
        layout.columns.iter().partition(|c| running.is_some_and(|r| c.slots.contains(&r)));
    if let Some(origin) = among(scope, &named, column, policies)? {
        return Ok(origin);
    }
    retained.reverse();
    let kept = |c: &Placed| format!("kept in {}, as it was left there", slots(&c.slots));
    Ok(match among(scope, &retained, column, policies) {
        Ok(Some(Origin::Keep { id, .. })) => {
            let reason = layout.by_id(id).map(kept);
            Origin::Keep { id, reason }
        }
        Ok(Some(Origin::Derive { source, rule, .. })) => {
            let reason =
                Some(format!("the running policy has none; `{}` was {}", source.name, kept(&source)));
            Origin::Derive { source, rule, reason }
        }
        Ok(None | Some(Origin::Default { .. })) => Origin::Default { reason: None },
        Err(_) => {
            let name = column.rule.from.as_ref().unwrap_or(&column.name);
            let found = retained.iter().find(|c| c.name == *name || c.name == column.name);
            let reason = found
                .map(|c| format!("`{}`: {}, kept in {}, cannot become it", c.name, c.ty, slots(&c.slots)));
            Origin::Default { reason }
        }
    })
}

/// The three questions of the module above, asked to some columns. A retained column may be there more than once; the
/// first counts.
fn among(
    scope: Scope,
    found: &[&Placed],
    column: &Column,
    policies: &Policies,
) -> Result<Option<Origin>, PlanError> {
    let rule = &column.rule;
    let units_agree = |c: &Placed| policies.units(c, column) == Units::Agree;
    let identical = |c: &&&Placed| {
        c.is(&column.name, &column.ty) && units_agree(c) && (!rule.derives() || c.rule.same(rule))
    };
    if let Some(same) = found.iter().find(identical) {
        return Ok(Some(Origin::Keep { id: same.id, reason: None }));
    }
    let derive = |source: &Placed, rule| derive(scope, source, column, rule, policies);
    let named = |name: &str| found.iter().copied().find(|c| c.name == name);
    let own = named(&column.name);
    let type_only = || Rule { saturate: rule.saturate, ..Rule::default() };
    if let Some(own) = own.filter(|o| rule.derives() && rule.convert.is_none() && o.rule.same(rule)) {
        match policies.units(own, column) {
            Units::Agree => return derive(own, type_only()).map(Some),
            // Its policy applied the rule, and so this one would a second time, to what nobody knows.
            Units::Unknown { policy } => return Err(unit_unknown(scope, own, column, policy)),
            Units::Differ => {}
        }
    }
    if let Some(source) = rule.from.as_deref().and_then(named) {
        return derive(source, rule.clone()).map(Some);
    }
    let Some(own) = own else { return Ok(None) };
    let has_unit = own.unit.is_some() && own.unit.as_deref() == column.unit();
    // A conversion to another type is never done already.
    let by_unit = has_unit && (rule.convert.is_none() || own.ty == column.ty);
    // What `scx:from` names is gone, so the renaming is done, and the rest of the rule with it, unless the unit says
    // that it is not, or the rule that the renaming was done by is known and said something else.
    let by_name = rule.from.is_some()
        && (units_agree(own) || rule.scale.is_none())
        && (own.rule.from != rule.from || (own.rule.scale, &own.rule.convert) == (rule.scale, &rule.convert));
    if !by_unit && !by_name {
        return derive(own, Rule { from: None, ..rule.clone() }).map(Some);
    }
    if own.ty == column.ty && units_agree(own) {
        return Ok(Some(Origin::Keep { id: own.id, reason: None }));
    }
    derive(own, type_only()).map(Some)
}

fn unit_unknown(scope: Scope, other: &Placed, column: &Column, policy: &str) -> PlanError {
    PlanError::UnitUnknown {
        scope,
        field: column.name.clone(),
        other: other.name.clone(),
        policy: policy.to_owned(),
        units: Box::new([column.unit().map(str::to_owned), other.unit.clone()]),
    }
}

fn derive(
    scope: Scope,
    source: &Placed,
    column: &Column,
    rule: Rule,
    policies: &Policies,
) -> Result<Origin, PlanError> {
    let origin = |rule| Ok(Origin::Derive { source: Box::new(source.clone()), rule, reason: None });
    if let Some(convert) = &rule.convert {
        let takes = takes(policies.new, &convert.program);
        if takes == Some(&source.ty) {
            return origin(rule);
        }
        return Err(PlanError::Conversion {
            scope,
            field: column.name.clone(),
            program: convert.program.clone(),
            takes: takes.map(|ty| Box::new(ty.clone())),
            old: Box::new(source.ty.clone()),
        });
    }
    match policies.units(source, column) {
        _ if rule.scale.is_some() => {}
        Units::Agree => {}
        Units::Unknown { policy } => return Err(unit_unknown(scope, source, column, policy)),
        Units::Differ => {
            return Err(PlanError::UnitMismatch {
                scope,
                field: column.name.clone(),
                unit: column.unit().unwrap_or_default().to_owned(),
                other: format!("`{}` of the predecessor", source.name),
                other_unit: source.unit.clone().unwrap_or_default(),
            });
        }
    }
    let unlike = |part: &str| PlanError::TypeChanged {
        scope,
        field: format!("{}{part}", column.name),
        old: Box::new(source.ty.clone()),
        new: Box::new(column.ty.clone()),
    };
    if rule.scale.is_some() && Number::of(column.ty.innermost()).is_none() {
        return Err(unlike(""));
    }
    match convert::check(&source.ty, &column.ty, rule.saturate) {
        Ok(()) => origin(rule),
        Err(Why::Unlike { path }) => Err(unlike(&path)),
        Err(Why::Narrower { path, from, to }) => {
            Err(PlanError::Narrower { scope, field: format!("{}{path}", column.name), old: from, new: to })
        }
    }
}

/// A well-known name has its unit and is an integer of its sign.
fn check_well_known(scope: Scope, column: &Column) -> Result<(), PlanError> {
    let Some(known) = well_known::find(&column.name) else { return Ok(()) };
    let field = column.name.clone();
    if let Some(unit) = column.unit.as_ref().filter(|u| *u != known.unit) {
        return Err(PlanError::UnitMismatch {
            scope,
            field,
            unit: unit.clone(),
            other: "every column of that well-known name".to_owned(),
            other_unit: known.unit.to_owned(),
        });
    }
    match column.ty {
        Type::Int { signed, .. } if signed == known.signed => Ok(()),
        _ => Err(PlanError::WellKnownType { scope, field, ty: column.ty.to_string(), expected: known.ty }),
    }
}

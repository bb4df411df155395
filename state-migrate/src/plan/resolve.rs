//! Which column a field of the new policy becomes.

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

pub(super) fn resolve(
    scope: Scope,
    layout: &ScopeLayout,
    running: Option<u32>,
    column: &Column,
    schema: &Schema,
) -> Result<Origin, PlanError> {
    check_well_known(scope, column)?;
    let (named, mut retained): (Vec<&Placed>, Vec<&Placed>) =
        layout.columns.iter().partition(|c| running.is_some_and(|r| c.slots.contains(&r)));
    if let Some(origin) = among(scope, &named, column, schema)? {
        return Ok(origin);
    }
    retained.reverse();
    let kept = |c: &Placed| format!("kept in {}, as it was left there", slots(&c.slots));
    Ok(match among(scope, &retained, column, schema) {
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
    schema: &Schema,
) -> Result<Option<Origin>, PlanError> {
    let rule = &column.rule;
    let identical = |c: &&&Placed| {
        c.is(&column.name, &column.ty) && units_agree(c, column) && (!rule.derives() || c.rule.same(rule))
    };
    if let Some(same) = found.iter().find(identical) {
        return Ok(Some(Origin::Keep { id: same.id, reason: None }));
    }
    let derive = |source: &Placed, rule| derive(scope, source, column, rule, schema);
    let named = |name: &str| found.iter().copied().find(|c| c.name == name);
    let own = named(&column.name);
    let type_only = || Rule { saturate: rule.saturate, ..Rule::default() };
    if let Some(own) = own.filter(|o| rule.derives() && rule.convert.is_none() && o.rule.same(rule))
        && units_agree(own, column)
    {
        return derive(own, type_only()).map(Some);
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
        && (units_agree(own, column) || rule.scale.is_none())
        && (own.rule.from != rule.from || (own.rule.scale, &own.rule.convert) == (rule.scale, &rule.convert));
    if !by_unit && !by_name {
        return derive(own, Rule { from: None, ..rule.clone() }).map(Some);
    }
    if own.ty == column.ty && units_agree(own, column) {
        return Ok(Some(Origin::Keep { id: own.id, reason: None }));
    }
    derive(own, type_only()).map(Some)
}

/// A side without a unit is taken to mean the same.
fn units_agree(placed: &Placed, column: &Column) -> bool {
    match (placed.unit.as_deref(), column.unit()) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    }
}

fn derive(
    scope: Scope,
    source: &Placed,
    column: &Column,
    rule: Rule,
    schema: &Schema,
) -> Result<Origin, PlanError> {
    let origin = |rule| Ok(Origin::Derive { source: Box::new(source.clone()), rule, reason: None });
    if let Some(convert) = &rule.convert {
        let takes = takes(schema, &convert.program);
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
    if rule.scale.is_none() && !units_agree(source, column) {
        return Err(PlanError::UnitMismatch {
            scope,
            field: column.name.clone(),
            unit: column.unit().unwrap_or_default().to_owned(),
            other: format!("`{}` of the predecessor", source.name),
            other_unit: source.unit.clone().unwrap_or_default(),
        });
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

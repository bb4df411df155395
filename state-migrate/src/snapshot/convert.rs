//! A snapshot of one version of a policy for another version: the plan of a swap, made and applied without a host.

use std::collections::BTreeMap;

use super::{Key, SavedColumn, Snapshot, SnapshotError, Table};
use crate::layout::{Layout, Placed};
use crate::plan::{ColumnPlan, Fate, Plan, Refusal, Row, plan, plan_report};
use crate::rule::Rule;
use crate::schema::{Column, Schema, Scope};
use crate::step::{Step, apply};

/// The slots that the two versions have in the layout that the plan is made in. No host sees it.
const SAVED: u32 = 0;
const WANTED: u32 = 1;
/// The records of that layout: they hold the columns of both versions, of any host's records.
const RECORD: u32 = 1 << 15;

/// A snapshot in the columns of another schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The columns of the schema that get a value from the snapshot, with it.
    pub snapshot: Snapshot,
    /// What becomes of each column that is saved or wanted: `carried`, `converted`, `dropped` if the policy has no
    /// column for it, `defaulted` if nothing was saved for it, `refused`, `skipped`.
    pub rows: Vec<Row>,
}

/// What a snapshot has in common with what it is restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Same {
    /// The policy and its version, so that the values have been through the columns' rules already.
    pub version: bool,
    /// The boot, so that time stamps are of the same clock.
    pub boot: bool,
}

/// Brings the values of a snapshot into the columns of `schema` by the rules that a swap goes by: same name and type,
/// renamed, widened, rescaled. What is refused or skipped is left out and told in the rows. Skipped are momentary columns,
/// and, in another boot, time stamps.
///
/// # Errors
/// The columns do not fit any record, or the snapshot is not one of columns that a policy can have.
pub fn convert(snapshot: &Snapshot, schema: &Schema, same: Same) -> Result<Converted, SnapshotError> {
    let mut wanted = units(schema);
    let saved = saved_schema(snapshot, &wanted, same.version);
    let mut left_out = skip(&mut wanted, &saved, same.boot);
    let sizes = Scope::ALL.map(|scope| (scope, RECORD));
    let unplanned = |why: String| SnapshotError::Unplanned { why };
    let start = plan(&Layout::new(&sizes), None, &saved, SAVED).map_err(|e| unplanned(e.to_string()))?;

    // The columns that are refused go one after the other, until a plan is left.
    let plan = loop {
        let report = plan_report(&start.layout, Some(SAVED), &wanted, WANTED);
        match report.plan {
            Some(plan) => match by_program(&plan) {
                None => break plan,
                Some((scope, name)) => {
                    let reason =
                        "a program of the author's converts it, which runs in a host only".to_owned();
                    let refusal = Refusal { scope: Some(scope), columns: vec![name], reason };
                    take_out(&mut wanted, &[refusal], &mut left_out).map_err(unplanned)?;
                }
            },
            None => take_out(&mut wanted, &report.refused, &mut left_out).map_err(unplanned)?,
        }
    };

    let mut rows = plan.rows();
    let is_told = |row: &Row| left_out.iter().any(|r: &Row| r.scope == row.scope && r.column == row.column);
    rows.retain(|row| !is_told(row));
    rows.extend(left_out);
    rows.sort_by_key(|row| row.scope);
    let snapshot = Snapshot {
        meta: snapshot.meta.clone(),
        tasks: table(&snapshot.tasks, Scope::Task, &plan, &wanted)?,
        cgroups: table(&snapshot.cgroups, Scope::Cgroup, &plan, &wanted)?,
        cpus: table(&snapshot.cpus, Scope::Cpu, &plan, &wanted)?,
        global: table(&snapshot.global, Scope::Global, &plan, &wanted)?,
    };
    Ok(Converted { snapshot, rows })
}

/// Take out of what is wanted what is true only at its moment: momentary columns, and, in another boot, those that would
/// get a time stamp. The host's records keep what they hold of these.
fn skip(wanted: &mut Schema, saved: &Schema, same_boot: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (scope, columns) in &mut wanted.scopes {
        let saved = saved.scopes.get(scope).map_or(&[][..], Vec::as_slice);
        columns.retain(|column| {
            // What it may be made of.
            let is = |c: &&Column| c.name == column.name || column.rule.from.as_ref() == Some(&c.name);
            let sources: Vec<&Column> = saved.iter().filter(is).collect();
            let is_stamp = column.is_time_stamp() || sources.iter().any(|c| c.is_time_stamp());
            let reason = if column.momentary {
                "it is true only while its policy runs"
            } else if !same_boot && is_stamp && !sources.is_empty() {
                "a time of another boot's clock"
            } else {
                return true;
            };
            rows.push(Row {
                scope: *scope,
                column: column.name.clone(),
                ty: column.ty.to_string(),
                fate: "skipped".to_owned(),
                from: None,
                reason: Some(reason.to_owned()),
            });
            false
        });
    }
    rows
}

/// The schema with each column's unit said, also where its name says it.
fn units(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    for column in schema.scopes.values_mut().flatten() {
        column.unit = column.unit().map(str::to_owned);
    }
    schema
}

/// The saved columns as a policy's.
fn saved_schema(snapshot: &Snapshot, wanted: &Schema, same: bool) -> Schema {
    let column = |scope: Scope, saved: &SavedColumn| {
        let twin = wanted.scopes.get(&scope).into_iter().flatten().find(|c| c.name == saved.name);
        // With the same rule it is the same column. Otherwise where it once came from is of no interest.
        let rule = twin.filter(|c| same && c.ty == saved.ty).map_or_else(Rule::default, |c| c.rule.clone());
        Column {
            name: saved.name.clone(),
            ty: saved.ty.clone(),
            default: None,
            unit: saved.unit.clone(),
            momentary: false,
            rule,
        }
    };
    let columns = |scope: Scope| -> Vec<Column> {
        let saved = match scope {
            Scope::Task => snapshot.tasks.columns(),
            Scope::Cgroup => snapshot.cgroups.columns(),
            Scope::Cpu => snapshot.cpus.columns(),
            Scope::Global => snapshot.global.columns(),
        };
        saved.iter().map(|saved| column(scope, saved)).collect()
    };
    let scopes: BTreeMap<_, _> = Scope::ALL.into_iter().map(|scope| (scope, columns(scope))).collect();
    Schema { policy: snapshot.meta.policy.clone(), scopes, ..Schema::default() }
}

/// A column that only a program can make.
fn by_program(plan: &Plan) -> Option<(Scope, String)> {
    plan.steps.iter().find_map(|(scope, steps)| {
        let call = steps.iter().find(|s| matches!(s, Step::Call(_)))?;
        let placed = plan.layout.named_by(*scope, WANTED).find(|c| c.offset == call.to())?;
        Some((*scope, placed.name.clone()))
    })
}

/// Take the refused columns out of what is wanted, into rows.
fn take_out(wanted: &mut Schema, refusals: &[Refusal], rows: &mut Vec<Row>) -> Result<(), String> {
    let before = rows.len();
    for refusal in refusals {
        let Some(scope) = refusal.scope else { return Err(refusal.reason.clone()) };
        let Some(columns) = wanted.scopes.get_mut(&scope) else { continue };
        // A refusal may name a part of a column, or none: then it is about the scope.
        let about = |column: &Column| {
            let is = |name: &String| name.split(['.', '[']).next() == Some(&column.name);
            refusal.columns.is_empty() || refusal.columns.iter().any(is)
        };
        for column in columns.iter().filter(|c| about(c)) {
            rows.push(Row {
                scope,
                column: column.name.clone(),
                ty: column.ty.to_string(),
                fate: "refused".to_owned(),
                from: None,
                reason: Some(refusal.reason.clone()),
            });
        }
        columns.retain(|c| !about(c));
    }
    match rows.len() > before {
        true => Ok(()),
        false => Err(refusals.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>().join("; ")),
    }
}

/// The rows of a scope in the wanted columns.
fn table<K: Key + Clone>(
    saved: &Table<K>,
    scope: Scope,
    plan: &Plan,
    wanted: &Schema,
) -> Result<Table<K>, SnapshotError> {
    let Some(layout) = plan.layout.scopes.get(&scope) else { return Ok(Table::default()) };
    let steps = plan.steps.get(&scope).map_or(&[][..], Vec::as_slice);
    let place = |name: &str| plan.layout.named_by(scope, SAVED).find(|c| c.name == name);
    // What is carried or made of something that was saved. The rest has its default in the host's records.
    let gets = |placed: &&Placed| {
        let same = |c: &&ColumnPlan| c.scope == scope && c.column == placed.name && c.offset == placed.offset;
        let row = plan.columns.iter().find(same);
        row.is_some_and(|c| matches!(c.fate, Fate::Carried | Fate::Converted(_)))
    };
    let targets: Vec<&Placed> = plan.layout.named_by(scope, WANTED).filter(gets).collect();
    if targets.is_empty() {
        return Ok(Table::default());
    }
    let columns = targets.iter().map(|placed| {
        let declared = wanted.scopes.get(&scope).into_iter().flatten().find(|c| c.name == placed.name);
        let unit = declared.and_then(|c| c.unit().map(str::to_owned));
        SavedColumn { name: placed.name.clone(), ty: placed.ty.clone(), unit }
    });
    let mut rows = Vec::with_capacity(saved.keys().len());
    let mut record = vec![0; layout.record_size as usize];
    for (key, values) in saved.rows() {
        let mut values = values;
        record.fill(0);
        for column in saved.columns() {
            let (value, rest) = values.split_at(column.ty.size() as usize);
            values = rest;
            if let Some(placed) = place(&column.name) {
                record[placed.offset as usize..][..value.len()].copy_from_slice(value);
            }
        }
        apply(steps, &mut record).map_err(|e| SnapshotError::Unplanned { why: e.to_string() })?;
        let row = targets.iter().flat_map(|c| &record[c.offset as usize..][..c.ty.size() as usize]);
        rows.push((key.clone(), row.copied().collect()));
    }
    Table::new(columns.collect(), rows)
}

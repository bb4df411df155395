//! `scx-upgrade snapshot`: what the running policy knows, to a file, shown, and back.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::snapshot;
use serde::Serialize;
use state_migrate::Snapshot;
use state_migrate::Type;
use state_migrate::snapshot::Key;
use state_migrate::snapshot::SavedColumn;
use state_migrate::snapshot::Table;

use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;

/// Rows of a scope that the text shows. JSON has all.
const ROWS: usize = 16;

pub fn save(pins: &Pins, file: &Path, with_tasks: bool, out: Output) -> Result<(), Failure> {
    let saved = snapshot::save(pins, file, with_tasks)?;
    out.show(&saved, |out| {
        line!(out, "saved what {} knows to {}", saved.policy, file.display());
        for scope in saved.scopes.iter().filter(|s| s.columns > 0) {
            line!(out, "  {:<7} {} columns, {} records", scope.scope, scope.columns, scope.records);
        }
    });
    Ok(())
}

pub fn restore(pins: &Pins, file: &Path, out: Output) -> Result<(), Failure> {
    let restored = snapshot::restore(pins, file)?;
    out.show(&restored, |out| output::restored(out, &restored));
    Ok(())
}

/// A snapshot as JSON.
#[derive(Serialize)]
struct Shown {
    policy: String,
    version: String,
    kernel: String,
    created_unix: u64,
    boot_id: String,
    scopes: Vec<Scope>,
}

#[derive(Serialize)]
struct Scope {
    scope: &'static str,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    unit: Option<String>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    /// In the order of the columns: a number, or the bytes in hexadecimal for what is none.
    values: Vec<String>,
}

pub fn show(file: &Path, out: Output) -> Result<(), Failure> {
    let Snapshot { meta, tasks, cgroups, cpus, global } = Snapshot::read(file).map_err(Error::from)?;
    let shown = Shown {
        policy: meta.policy,
        version: meta.version,
        kernel: meta.kernel,
        created_unix: meta.created_unix,
        boot_id: meta.boot_id.to_string(),
        scopes: vec![
            scope("task", &tasks),
            scope("cgroup", &cgroups),
            scope("cpu", &cpus),
            scope("global", &global),
        ],
    };
    out.show(&shown, |out| text(out, &shown));
    Ok(())
}

fn scope<K: Key + Display>(scope: &'static str, table: &Table<K>) -> Scope {
    let columns = table.columns().iter().map(|c| Column {
        name: c.name.clone(),
        ty: c.ty.to_string(),
        unit: c.unit.clone(),
    });
    let rows = table
        .rows()
        .map(|(key, values)| Row { key: key.to_string(), values: split(table.columns(), values) });
    Scope { scope, columns: columns.collect(), rows: rows.collect() }
}

fn split(columns: &[SavedColumn], mut values: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    for column in columns {
        let (value, rest) = values.split_at_checked(column.ty.size() as usize).unwrap_or((values, &[]));
        out.push(display(&column.ty, value));
        values = rest;
    }
    out
}

fn display(ty: &Type, bytes: &[u8]) -> String {
    if let Some(number) = state_migrate::Number::of(ty)
        && bytes.len() <= 8
    {
        let unsigned = bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        let unused = 64 - 8 * bytes.len() as u32;
        return match number.signed {
            true => ((unsigned << unused) as i64 >> unused).to_string(),
            false => unsigned.to_string(),
        };
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(out: &mut String, shown: &Shown) {
    line!(out, "policy   {} {}", shown.policy, shown.version);
    line!(out, "kernel   {}", shown.kernel);
    line!(out, "made     {} s after 1970, in boot {}", shown.created_unix, shown.boot_id);
    for scope in shown.scopes.iter().filter(|s| !s.columns.is_empty()) {
        let columns = scope.columns.iter().map(|c| {
            let unit = c.unit.as_ref().map(|u| format!(" in {u}")).unwrap_or_default();
            format!("{}: {}{unit}", c.name, c.ty)
        });
        line!(out, "{:<8} {}", scope.scope, columns.collect::<Vec<_>>().join(", "));
        for row in scope.rows.iter().take(ROWS) {
            line!(out, "  {}: {}", row.key, row.values.join(", "));
        }
        if scope.rows.len() > ROWS {
            line!(out, "  and {} more, see --json", scope.rows.len() - ROWS);
        }
    }
}

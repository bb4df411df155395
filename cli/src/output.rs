//! Printing: JSON, durations, the report of a swap.

use scx_upgrade_sdk::report::Report;
use scx_upgrade_sdk::snapshot::Restored;
use serde::Serialize;
use state_migrate::QueueRow;
use state_migrate::Row;

/// One document on stdout.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(e) => eprintln!("error: cannot write JSON: {e}"),
    }
}

/// A duration in the unit that reads best.
pub fn duration(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Columns and what becomes of them, one a line.
pub fn rows(rows: &[Row]) {
    let name = |row: &Row| format!("{}.{}", row.scope, row.column);
    let names = rows.iter().map(|r| name(r).len()).max().unwrap_or(0);
    let types = rows.iter().map(|r| r.ty.len()).max().unwrap_or(0);
    for row in rows {
        let from = row.from.as_ref().map(|f| format!("from {f}"));
        let why = [from, row.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        println!(
            "{}",
            format!("  {:<9}  {:<names$}  {:<types$}  {why}", row.fate, name(row), row.ty).trim_end()
        );
    }
}

/// Queues and what becomes of them, one a line.
pub fn queues(rows: &[QueueRow]) {
    let names = rows.iter().map(|r| r.queue.len()).max().unwrap_or(0);
    let kinds = rows.iter().map(|r| r.kind.len()).max().unwrap_or(0);
    for row in rows {
        let why = row.reason.as_deref().unwrap_or_default();
        let line = format!("  {:<11}  queue {:<names$}  {:<kinds$}  {why}", row.fate, row.queue, row.kind);
        println!("{}", line.trim_end());
    }
}

/// What a snapshot brought.
pub fn restored(restored: &Restored) {
    println!("restored what {} knew:", restored.saved_by);
    rows(&restored.columns);
    for scope in &restored.scopes {
        let gone = if scope.gone > 0 { format!(", {} are no more", scope.gone) } else { String::new() };
        println!("  {} {} records{gone}", scope.restored, scope.scope);
    }
    if restored.other_boot {
        println!("  its tasks are of another boot: left out");
    }
}

/// What a swap, a rollback or a start did.
pub fn report(report: &Report, as_json: bool) {
    if as_json {
        return json(report);
    }
    let from = report.from.as_ref().map(|f| format!(" (was {f})")).unwrap_or_default();
    println!("{} is running as generation {}{from}", report.to, report.generation);
    rows(&report.columns);
    queues(&report.queues);
    if let Some(what) = &report.restored {
        restored(what);
    }
    let t = &report.timings;
    if report.reattached {
        println!(
            "  reattached: tasks were on the default scheduler for up to {} (detach {}, attach {})",
            duration(t.gap_ns),
            duration(t.detach_ns),
            duration(t.attach_ns)
        );
    } else if t.attach_ns > 0 {
        println!("  attach  {}", duration(t.attach_ns));
    } else {
        println!("  commit  {}", duration(t.commit_ns));
    }
    if t.hold_ns > 0 {
        println!(
            "  held    {} (no policy ran while the newer one's own inverse brought the records back)",
            duration(t.hold_ns)
        );
    }
    if t.sweep_ns > 0 {
        let scopes = report.swept.iter().map(|s| format!("{} of {} {}s", s.applied, s.visited, s.scope));
        println!(
            "  sweep   {} (brought {} up to date)",
            duration(t.sweep_ns),
            scopes.collect::<Vec<_>>().join(", ")
        );
    }
    if report.tasks_handed_over > 0 {
        println!("  handed over {} waiting tasks", report.tasks_handed_over);
    }
    println!(
        "  total   {} (load {}, settle {})",
        duration(t.total_ns),
        duration(t.load_ns),
        duration(t.settle_ns)
    );
}

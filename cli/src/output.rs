//! What is printed, and how: text at 80 columns without colour, one JSON document, or nothing.

use std::fmt::Write as _;

use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::observe::report::Restored;
use scx_upgrade_engine::os::logger;
use serde::Serialize;
use state_migrate::QueueRow;
use state_migrate::Row;

use crate::failure::Failure;
use crate::print::json;
use crate::print::json_line;
use crate::print::print;

/// Columns of the narrowest terminal that text is made for.
pub const WIDTH: usize = 80;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Show something: as JSON, or as the text that `text` writes.
    pub fn show(self, value: &impl Serialize, text: impl FnOnce(&mut String)) {
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => json(value),
            (false, false) => {
                let mut out = String::new();
                text(&mut out);
                let _ = print(&out);
            }
        }
    }

    /// The same of a verb that fails: JSON has both in one document, which the failure then carries.
    pub fn show_failed(
        self,
        value: &impl Serialize,
        text: impl FnOnce(&mut String),
        failure: Failure,
    ) -> Failure {
        if self.json && !self.quiet {
            return Failure { document: serde_json::to_value(value).ok(), ..failure };
        }
        self.show(value, text);
        failure
    }

    /// Show one thing of many: as one line of JSON, so that a reader can tell one from the next, or as text. Does anyone still read?
    pub fn line(self, value: &impl Serialize, text: impl FnOnce() -> String) -> bool {
        match (self.quiet, self.json) {
            (true, _) => true,
            (false, true) => json_line(value),
            (false, false) => print(&text()),
        }
    }

    /// Say what went wrong beside what was to be done. JSON has it in the document.
    pub fn warn(self, warnings: &[String]) {
        if !self.quiet && !self.json {
            warnings.iter().for_each(|warning| logger::print_error(format_args!("warning: {warning}")));
        }
    }

    /// What a swap, a rollback or a start did.
    pub fn report(self, done: &Report) {
        self.show(done, |out| report(out, done));
        self.warn(&done.warnings);
    }
}

/// A line, formatted, at the end of a text.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        // Writing to a String does not fail.
        let _ = writeln!($out, $($arg)*);
    }};
}
pub(crate) use line;

/// A duration in the unit that reads best.
pub fn duration(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Words in lines of at most [`WIDTH`] columns, each but the first behind `indent` blanks, the first behind what `out` has
/// in its last line.
pub fn wrapped(out: &mut String, indent: usize, text: &str) {
    let mut column = out.lines().last().filter(|_| !out.ends_with('\n')).map_or(0, |l| l.chars().count());
    for (i, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// Columns and what becomes of them, one a line.
pub fn rows(out: &mut String, rows: &[Row]) {
    let name = |row: &Row| format!("{}.{}", row.scope, row.column);
    let names = rows.iter().map(|r| name(r).len()).max().unwrap_or(0);
    let types = rows.iter().map(|r| r.ty.len()).max().unwrap_or(0);
    for row in rows {
        let from = row.from.as_ref().map(|f| format!("from {f}"));
        let why = [from, row.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let line = format!("  {:<9}  {:<names$}  {:<types$}  {why}", row.fate, name(row), row.ty);
        line!(out, "{}", line.trim_end());
    }
}

/// Queues and what becomes of them, one a line.
pub fn queues(out: &mut String, rows: &[QueueRow]) {
    let names = rows.iter().map(|r| r.queue.len()).max().unwrap_or(0);
    let kinds = rows.iter().map(|r| r.kind.len()).max().unwrap_or(0);
    for row in rows {
        let why = row.reason.as_deref().unwrap_or_default();
        let line = format!("  {:<11}  queue {:<names$}  {:<kinds$}  {why}", row.fate, row.queue, row.kind);
        line!(out, "{}", line.trim_end());
    }
}

/// What a snapshot brought.
pub fn restored(out: &mut String, restored: &Restored) {
    line!(out, "restored what {} knew:", restored.saved_by);
    rows(out, &restored.columns);
    for scope in &restored.scopes {
        let gone = if scope.gone > 0 { format!(", {} are no more", scope.gone) } else { String::new() };
        line!(out, "  {} {} records{gone}", scope.restored, scope.scope);
    }
    if restored.other_boot {
        line!(out, "  its tasks are of another boot: left out");
    }
}

/// What a swap, a rollback or a start did.
pub fn report(out: &mut String, report: &Report) {
    let from = report.from.as_ref().map(|f| format!(" (was {f})")).unwrap_or_default();
    line!(out, "{} is running as generation {}{from}", report.to, report.generation);
    rows(out, &report.columns);
    queues(out, &report.queues);
    if let Some(what) = &report.restored {
        restored(out, what);
    }
    let t = &report.timings;
    if report.reattached {
        line!(
            out,
            "  reattached: tasks were on the default scheduler for up to {} (detach {}, attach {})",
            duration(t.gap_ns),
            duration(t.detach_ns),
            duration(t.attach_ns)
        );
    } else if t.attach_ns > 0 {
        line!(out, "  attach  {}", duration(t.attach_ns));
    } else {
        line!(out, "  commit  {}", duration(t.commit_ns));
    }
    if t.hold_ns > 0 {
        line!(
            out,
            "  held    {} (no policy ran while the newer one's own inverse brought the records back)",
            duration(t.hold_ns)
        );
    }
    if t.sweep_ns > 0 {
        let scopes = report.swept.iter().map(|s| format!("{} of {} {}s", s.applied, s.visited, s.scope));
        let scopes = scopes.collect::<Vec<_>>().join(", ");
        line!(out, "  sweep   {} (brought {scopes} up to date)", duration(t.sweep_ns));
    }
    if report.tasks_handed_over > 0 {
        line!(out, "  handed over {} waiting tasks", report.tasks_handed_over);
    }
    if report.tasks_rescued > 0 {
        line!(out, "  gave out anew {} tasks that were on no queue", report.tasks_rescued);
    }
    line!(
        out,
        "  total   {} (load {}, settle {})",
        duration(t.total_ns),
        duration(t.load_ns),
        duration(t.settle_ns)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut out = String::from("blocks   scheduler    ");
        wrapped(&mut out, 22, &"another scheduler is running ".repeat(9));
        assert!(out.lines().count() > 3);
        assert!(out.lines().all(|l| l.chars().count() <= WIDTH), "{out}");
        assert!(out.lines().skip(1).all(|l| l.starts_with(&" ".repeat(22)) && !l.ends_with(' ')), "{out}");
        let mut out = String::new();
        wrapped(&mut out, 4, "short");
        assert_eq!(out, "short\n");
    }
}

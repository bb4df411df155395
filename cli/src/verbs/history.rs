//! `scx-upgrade history`: what was done. The file has what outlives a boot; the host's registry has the latest commits
//! of what the file lacks.

use std::fmt::Write as _;

use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::history::Entry;
use scx_upgrade_engine::observe::history::History;
use scx_upgrade_engine::observe::history::HistoryLog;
use scx_upgrade_engine::observe::history::Outcome;
use serde::Serialize;

use crate::args::HistoryArgs;
use crate::clock;
use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;

/// What is shown.
#[derive(Serialize)]
struct Shown {
    /// Oldest first.
    entries: Vec<Entry>,
    /// Lines of the file that are damaged.
    damaged: usize,
    warnings: Vec<String>,
}

pub fn history(args: &HistoryArgs, out: Output) -> Result<(), Failure> {
    let mut warnings = Vec::new();
    let past = History::new().read().unwrap_or_else(|e| {
        warnings.push(format!("the history cannot be read: {e}"));
        HistoryLog::default()
    });
    if past.damaged > 0 {
        warnings.push(format!("{} lines of the history are damaged and left out", past.damaged));
    }
    let HistoryLog { mut entries, damaged } = past;
    let lacking = lacking(&entries);
    if !lacking.is_empty() {
        warnings.push(format!("{} commits are in the host's registry only", lacking.len()));
    }
    lacking.into_iter().for_each(|entry| insert(&mut entries, entry));
    entries.drain(..entries.len().saturating_sub(args.latest));
    let shown = Shown { entries, damaged, warnings };
    out.show(&shown, |out| match (shown.entries.is_empty(), args.long) {
        (true, _) => line!(out, "nothing was done yet"),
        (false, true) => shown.entries.iter().for_each(|entry| long(out, entry)),
        (false, false) => text(out, &shown.entries),
    });
    out.warn(&shown.warnings);
    Ok(())
}

/// Put a commit where it belongs. The file's own order is that in which things were done.
fn insert(entries: &mut Vec<Entry>, entry: Entry) {
    let is_later = |e: &Entry| match e.unix_time == entry.unix_time {
        true => e.generation > entry.generation,
        false => e.unix_time > entry.unix_time,
    };
    let at = entries.iter().position(is_later).unwrap_or(entries.len());
    entries.insert(at, entry);
}

/// The commits that the registry has and the file has not.
fn lacking(entries: &[Entry]) -> Vec<Entry> {
    // Where there is no host, or it cannot be read, the file is all there is.
    let host = pins::check_bpffs().and_then(|()| Pins::open()).and_then(|pins| Host::running(&pins));
    let registry = host.map_or(Vec::new(), |host| host.registry.generations);
    let lacking = registry.iter().filter(|g| !entries.iter().any(|e| e.is(g)));
    lacking.map(Entry::of_registry).collect()
}

fn text(out: &mut String, entries: &[Entry]) {
    line!(out, " gen  when                 by        what       how it ended");
    for entry in entries {
        let number = entry.generation.map_or("-".to_string(), |n| n.to_string());
        let by = short(&entry.by.to_string(), 8);
        let (when, what) = (clock::local(entry.unix_time), &entry.verb);
        let _ = write!(out, "{number:>4}  {when}  {by:<8}  {what:<9}  ");
        let room = output::WIDTH - out.lines().last().map_or(0, |l| l.chars().count());
        line!(out, "{}", short(&ended(entry), room));
    }
}

/// How it ended, in one line.
fn ended(entry: &Entry) -> String {
    if let Some(message) = &entry.message {
        return format!("failed: {message}");
    }
    let took = match entry.timings.total_ns {
        0 => String::new(),
        ns => format!(", {}", output::duration(ns)),
    };
    match (entry.generation, &entry.from) {
        (None, Some(from)) => format!("{from} ended{took}"),
        (None, None) => "leftovers removed".to_string(),
        _ => {
            let way = if entry.reattached { ", reattached" } else { "" };
            format!("{} {}{way}{took}", entry.policy, entry.version)
        }
    }
}

/// The first line of a message, and how many there are more: a verifier's log has hundreds.
fn first_line(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    match message.lines().count() {
        0 | 1 => first.to_string(),
        n => format!("{first} (and {} lines more, see --json)", n - 1),
    }
}

/// At most so many characters of the first line.
fn short(text: &str, room: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.chars().count() > room {
        false => line.to_string(),
        true => line.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn long(out: &mut String, entry: &Entry) {
    let mut label = |name: &str, value: &str| {
        let _ = write!(out, "{name:<12}");
        output::wrapped(out, 12, value);
    };
    let number = entry.generation.map_or(String::new(), |n| format!(" to generation {n}"));
    label("what", &format!("{}{number}", entry.verb));
    label("when", &clock::local(entry.unix_time));
    label("by", &format!("{}, uid {}, process {}", entry.by, entry.by.uid, entry.by.pid));
    if let Some(from) = &entry.from {
        label("from", from);
    }
    if !entry.policy.is_empty() {
        label("to", &format!("{} {}", entry.policy, entry.version));
    }
    if let Some(binary) = &entry.binary {
        label("binary", &binary.path.display().to_string());
        label("sha256", &binary.sha256);
        label("build id", binary.build_id.as_deref().unwrap_or("none"));
    }
    if !entry.args.is_empty() {
        label("arguments", &entry.args.join(" "));
    }
    if !entry.plan.is_empty() {
        let fates: Vec<_> = entry.plan.iter().map(|(fate, n)| format!("{n} {fate}")).collect();
        label("plan", &fates.join(", "));
    }
    let outcome = match entry.outcome {
        Outcome::Done if entry.reattached => "done, by a reattach",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
    };
    let why = entry.message.as_ref().map(|message| format!(": {}", first_line(message)));
    label("outcome", &format!("{outcome}{}", why.unwrap_or_default()));
    let t = &entry.timings;
    let steps = [("load", t.load_ns), ("commit", t.commit_ns), ("sweep", t.sweep_ns), ("total", t.total_ns)];
    let took = steps.iter().filter(|(_, ns)| *ns > 0);
    let took: Vec<_> = took.map(|(step, ns)| format!("{step} {}", output::duration(*ns))).collect();
    if !took.is_empty() {
        label("took", &took.join(", "));
    }
    label("kernel", &entry.kernel);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use scx_upgrade_engine::observe::history::Actor;
    use scx_upgrade_engine::observe::history::Verb;
    use scx_upgrade_engine::observe::report::Timings;

    use super::*;

    fn entry(message: Option<&str>) -> Entry {
        Entry {
            unix_time: 1_795_253_261,
            verb: Verb::Rollback,
            outcome: if message.is_some() { Outcome::Failed } else { Outcome::Done },
            generation: message.is_none().then_some(12),
            policy: "scx_fair".into(),
            version: "2.0.0".into(),
            from: Some("scx_fair 1.0.0".into()),
            binary: None,
            args: vec!["--slice-us".into(), "100".into()],
            by: Actor { sudo_user: Some("a-very-long-name".into()), ..Actor::default() },
            plan: BTreeMap::from([("carried".into(), 4)]),
            reattached: false,
            timings: Timings { total_ns: 12_000_000, ..Timings::default() },
            message: message.map(str::to_string),
            boot_id: String::new(),
            kernel: "7.3.4".into(),
        }
    }

    #[test]
    fn commits_of_the_registry_stand_where_they_belong() {
        let at = |generation, unix_time| Entry { generation: Some(generation), unix_time, ..entry(None) };
        let mut entries = vec![at(1, 10), at(3, 10), at(5, 12)];
        for missing in [at(2, 10), at(4, 11), at(6, 12)] {
            insert(&mut entries, missing);
        }
        assert_eq!(entries.iter().filter_map(|e| e.generation).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn it_reads_well_at_80_columns() {
        let failed = entry(Some(&"the state cannot be carried, and here is why, at length. ".repeat(4)));
        let mut out = String::new();
        text(&mut out, &[entry(None), failed.clone()]);
        assert!(out.lines().all(|l| l.chars().count() <= output::WIDTH), "{out}");
        assert!(out.contains("a-very-…  rollback   scx_fair 2.0.0, 12.0 ms"), "{out}");
        assert!(out.lines().nth(2).is_some_and(|l| l.starts_with("   -  ") && l.ends_with('…')), "{out}");
        let mut out = String::new();
        long(&mut out, &failed);
        assert!(out.lines().all(|l| l.chars().count() <= output::WIDTH), "{out}");
        assert!(out.contains("arguments   --slice-us 100\n"), "{out}");
    }
}

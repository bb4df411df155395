//! Whether a swap carried every task's record: two snapshots compared, one from just before it and one from just after.
//!
//! Between the two, tasks go on. What must hold of a task depends on what it did ([`Change`]):
//!
//! - **slept**: it was asleep both times and was not switched away from in between, so it did not run and no op wrote
//!   its record. Every carried column is the same to the byte, every new one is exactly its default.
//! - **ran**: each column keeps the rules that hold whatever it did, see [`rules`].
//! - **born**: it has a record, and that keeps the rules for a record without a past.
//!
//! A record that is not up to date (its stamp is not the running epoch) is a failure of all three. Tasks on their way
//! out and idle threads are not counted as live.

pub mod rules;

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use state_migrate::{Layout, Placed, Scope};

use crate::reader::{Entry, Key, Snapshot};
use rules::{Past, Rules};

/// Failures that are told in words.
const TOLD: usize = 20;

/// What the later snapshot is to show.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Columns whose values were carried.
    pub carried: Vec<Placed>,
    /// Columns that came with the swap.
    pub defaulted: Vec<Placed>,
    /// The epoch that every record must be up to.
    pub epoch: u32,
    /// What holds of columns of tasks that ran.
    pub rules: Rules,
}

impl Expect {
    /// For the swap from the policy in slot `from` to the one in slot `to`, by the host's layout after it. What the
    /// new policy does not name is carried all the same: a rollback finds it.
    pub fn of_swap(layout: &Layout, from: u8, to: u8, epoch: u32, rules: Rules) -> Self {
        let named = |slot: u8| layout.named_by(Scope::Task, u32::from(slot)).cloned();
        let carried: Vec<Placed> = named(from).collect();
        let defaulted = named(to).filter(|column| !carried.contains(column)).collect();
        Self { carried, defaulted, epoch, rules }
    }

    /// For a rollback between the policies in the two slots: every column of either is as it was.
    pub fn of_rollback(layout: &Layout, from: u8, to: u8, epoch: u32, rules: Rules) -> Self {
        let mut expect = Self::of_swap(layout, from, to, epoch, rules);
        expect.carried.append(&mut expect.defaulted);
        expect
    }
}

/// What a task did between the snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing, asleep all the time.
    Slept,
    /// It ran, or was woken, or may have been.
    Ran,
    /// It was born.
    Born,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Live tasks in the later snapshot: `idle + ran + born`.
    pub live: usize,
    /// Of these, those that slept from one snapshot to the other.
    pub idle: usize,
    /// Those that ran in between.
    pub ran: usize,
    /// Those that were born in between.
    pub born: usize,
    /// Live in the earlier snapshot and gone in the later, or going.
    pub gone: usize,
    /// Live tasks whose record is as it must be. Right is: all of them.
    pub verified: usize,
    /// Those of `verified` that were there before: their values were carried.
    pub carried: usize,
    /// The first failures: task, column, before and after.
    pub failures: Vec<String>,
}

/// Compare two snapshots.
pub fn verify(before: &Snapshot, after: &Snapshot, expect: &Expect) -> Verification {
    let live = |entry: &&Entry| !entry.is_idle_thread() && !entry.is_exiting();
    let earlier: HashMap<Key, &Entry> =
        before.entries.iter().filter(live).map(|entry| (entry.key(), entry)).collect();
    let mut outcome = Verification { gone: earlier.len(), ..Verification::default() };
    for entry in after.entries.iter().filter(live) {
        let old = earlier.get(&entry.key()).copied();
        let change = change(old, entry);
        outcome.live += 1;
        outcome.gone -= usize::from(old.is_some());
        match change {
            Change::Slept => outcome.idle += 1,
            Change::Ran => outcome.ran += 1,
            Change::Born => outcome.born += 1,
        }
        match check(old, entry, change, expect) {
            Ok(()) => {
                outcome.verified += 1;
                outcome.carried += usize::from(old.is_some());
            }
            Err(failure) if outcome.failures.len() < TOLD => outcome.failures.push(failure.to_string()),
            Err(_) => {}
        }
    }
    outcome
}

fn change(old: Option<&Entry>, new: &Entry) -> Change {
    match old {
        None => Change::Born,
        Some(old) if old.is_asleep() && new.is_asleep() && old.switches() == new.switches() => Change::Slept,
        Some(_) => Change::Ran,
    }
}

/// One task's failure, in the words of the report.
struct Failure<'a> {
    task: &'a Entry,
    change: Change,
    what: String,
    before: &'a [u8],
    after: &'a [u8],
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, change, what, before, after } = self;
        let did = match change {
            Change::Slept => "slept",
            Change::Ran => "ran",
            Change::Born => "was born",
        };
        write!(f, "pid {} ({}), which {did}: {what}", task.key().pid, task.comm())?;
        if !after.is_empty() {
            write!(f, ": before {}, after {}", Value(before), Value(after))?;
        }
        Ok(())
    }
}

/// Bytes of a column as one number, or in hex where there are more.
struct Value<'a>(&'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        if self.0.len() <= 8 {
            return write!(f, "{}", rules::number(self.0));
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn check<'a>(
    old: Option<&'a Entry>,
    new: &'a Entry,
    change: Change,
    expect: &'a Expect,
) -> Result<(), Failure<'a>> {
    let fail = |what: String, before: &'a [u8], after: &'a [u8]| {
        Err(Failure { task: new, change, what, before, after })
    };
    if !new.has_record() {
        return fail("it has no record".to_owned(), &[], &[]);
    }
    if old.is_some_and(|old| !old.has_record()) {
        return fail("it had no record before".to_owned(), &[], &[]);
    }
    // Before its first waking the host's `enable` brings it up to date.
    if new.stamp != expect.epoch && !new.is_being_born() {
        return fail(format!("its record is of epoch {}, not {}", new.stamp, expect.epoch), &[], &[]);
    }
    for column in &expect.carried {
        let after = new.column(column);
        let before = old.map_or(&[][..], |old| old.column(column));
        let kept = match old {
            Some(_) if change == Change::Slept => {
                (before == after).then_some(()).ok_or_else(|| "is not what it was".to_owned())
            }
            Some(old) => expect.rules.check(
                column,
                Past::Value { bytes: before, turns: turns(old, new, expect.rules.slice_ns) },
                after,
            ),
            None => expect.rules.check(column, Past::None, after),
        };
        if let Err(why) = kept {
            return fail(format!("{} {why}", column.name), before, after);
        }
    }
    for column in &expect.defaulted {
        let (after, default) = (new.column(column), initial(column));
        let kept = match old {
            Some(_) if change == Change::Slept => {
                (default == after).then_some(()).ok_or_else(|| "is not its default".to_owned())
            }
            // What it was before its first turn is known: the default.
            Some(old) => expect.rules.check(
                column,
                Past::Value { bytes: &default, turns: turns(old, new, expect.rules.slice_ns) },
                after,
            ),
            None => expect.rules.check(column, Past::None, after),
        };
        if let Err(why) = kept {
            return fail(format!("{} {why}", column.name), &[], after);
        }
    }
    Ok(())
}

/// The most turns on the CPU that can have ended in between. One for each time that it was switched away from, and one
/// that has ended with the switch still to come. A task whose slice is over and that is picked again has ended a turn
/// without a switch: one for each slice that it ran, and one for what it had run of a slice before.
fn turns(old: &Entry, new: &Entry, slice_ns: u64) -> u64 {
    let switches = new.switches().wrapping_sub(old.switches());
    let slices = new.ran_ns.saturating_sub(old.ran_ns) / slice_ns.max(1);
    switches.saturating_add(slices).saturating_add(2)
}

/// A column's value in a record without a past: each element its default.
fn initial(column: &Placed) -> Vec<u8> {
    let layout = state_migrate::ScopeLayout {
        record_size: column.offset + column.ty.size(),
        columns: vec![column.clone()],
        next_id: column.id + 1,
    };
    let layout = Layout { scopes: [(Scope::Task, layout)].into(), policies: Default::default() };
    layout.image(Scope::Task).split_off(column.offset as usize)
}

#[cfg(test)]
mod tests;

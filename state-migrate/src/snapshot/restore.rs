//! Which bytes of a snapshot go where in the host's records.

use std::fmt;
use std::ops::Range;

use super::{BootId, CgroupPath, Key, NoKey, SavedColumn, Snapshot, Table, TaskKey};
use crate::layout::Layout;
use crate::schema::Scope;
use crate::types::Type;

/// What becomes of a saved column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Its values go to this place, in bytes from the start of the record.
    Restored {
        /// The place.
        offset: u32,
    },
    /// The policy has no column of that name.
    Unknown,
    /// The policy's column of that name has another type.
    OtherType {
        /// The type that the policy has.
        wanted: Type,
    },
    /// The policy's column of that name has another unit, or one of the two has none.
    OtherUnit {
        /// The unit that the policy has.
        wanted: Option<String>,
    },
    /// It is of tasks, and those were tasks of another boot.
    OtherBoot,
}

/// What becomes of one saved column, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnReport {
    /// The scope it is of.
    pub scope: Scope,
    /// The column as saved.
    pub saved: SavedColumn,
    /// What becomes of it.
    pub matched: Match,
}

impl fmt::Display for ColumnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ty) = (&self.saved.name, &self.saved.ty);
        write!(f, "{}.{name}: {ty} ", self.scope)?;
        let unit = |unit: &Option<String>| unit.as_ref().map_or("no unit".into(), |u| format!("unit `{u}`"));
        match &self.matched {
            Match::Restored { offset } => write!(f, "restored at {offset}"),
            Match::Unknown => f.write_str("skipped: the policy has no such column"),
            Match::OtherType { wanted } => write!(f, "skipped: the policy has it as `{wanted}`"),
            Match::OtherUnit { wanted } => {
                let (saved, wanted) = (unit(&self.saved.unit), unit(wanted));
                write!(f, "skipped: saved with {saved}, the policy has {wanted}")
            }
            Match::OtherBoot => f.write_str("skipped: its tasks are of another boot"),
        }
    }
}

/// What goes into the records of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRestore<'s, K> {
    table: &'s Table<K>,
    /// Where in a record, and which bytes of a row.
    places: Vec<(u32, Range<usize>)>,
}

impl<'s, K: Key> ScopeRestore<'s, K> {
    /// Whether there is nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() || self.table.keys().is_empty()
    }

    /// For each key, the bytes to store and where, in bytes from the start of the record and in that order. Nothing
    /// in it overlaps or touches the record's header. No key if no column is restored.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = (&'s K, impl Iterator<Item = (u32, &'s [u8])> + use<'_, 's, K>)> {
        let rows = (!self.places.is_empty()).then(|| self.table.rows());
        rows.into_iter().flatten().map(|(key, row)| {
            (key, self.places.iter().map(move |(offset, range)| (*offset, &row[range.clone()])))
        })
    }
}

/// What a snapshot brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored<'s> {
    /// Into the tasks' records; nothing if the snapshot is of another boot.
    pub tasks: ScopeRestore<'s, TaskKey>,
    /// Into the cgroups' records. Cgroups that are no more are the caller's to skip.
    pub cgroups: ScopeRestore<'s, CgroupPath>,
    /// Into the CPUs' records. CPUs that are no more are the caller's to skip.
    pub cpus: ScopeRestore<'s, u32>,
    /// Into the global record.
    pub global: ScopeRestore<'s, NoKey>,
    /// What becomes of each saved column, by scope and name.
    pub columns: Vec<ColumnReport>,
    /// The policy's columns that nothing is restored into: they keep what their records hold.
    pub untouched: Vec<(Scope, String)>,
}

/// Matches a snapshot's columns with those that the policy in `slot` of `layout` names: by scope, name and type, and by
/// unit, which `unit` tells for the policy's column of a scope and name. `boot_id` is that of this boot.
pub fn restore<'s>(
    snapshot: &'s Snapshot,
    layout: &Layout,
    slot: u32,
    boot_id: BootId,
    unit: impl Fn(Scope, &str) -> Option<String>,
) -> Restored<'s> {
    let mut to = Target { layout, slot, unit: &unit, columns: Vec::new() };
    let same_boot = snapshot.meta.boot_id == boot_id;
    let tasks = to.scope(Scope::Task, &snapshot.tasks, same_boot);
    let cgroups = to.scope(Scope::Cgroup, &snapshot.cgroups, true);
    let cpus = to.scope(Scope::Cpu, &snapshot.cpus, true);
    let global = to.scope(Scope::Global, &snapshot.global, true);
    let columns = to.columns;
    let restored = |scope: Scope, offset: u32| {
        columns.iter().any(|c| c.scope == scope && c.matched == Match::Restored { offset })
    };
    let mut untouched = Vec::new();
    for scope in Scope::ALL {
        let left = layout.named_by(scope, slot).filter(|c| !restored(scope, c.offset));
        untouched.extend(left.map(|c| (scope, c.name.clone())));
    }
    Restored { tasks, cgroups, cpus, global, columns, untouched }
}

/// The columns to restore into, and the report so far.
struct Target<'l> {
    layout: &'l Layout,
    slot: u32,
    unit: &'l dyn Fn(Scope, &str) -> Option<String>,
    columns: Vec<ColumnReport>,
}

impl Target<'_> {
    fn scope<'s, K: Key>(
        &mut self,
        scope: Scope,
        table: &'s Table<K>,
        same_boot: bool,
    ) -> ScopeRestore<'s, K> {
        let (mut places, mut at) = (Vec::new(), 0);
        for saved in table.columns() {
            let end = at + saved.size();
            let matched = if same_boot { self.find(scope, saved) } else { Match::OtherBoot };
            if let Match::Restored { offset } = matched {
                places.push((offset, at..end));
            }
            self.columns.push(ColumnReport { scope, saved: saved.clone(), matched });
            at = end;
        }
        places.sort_unstable_by_key(|place| place.0);
        ScopeRestore { table, places }
    }

    fn find(&self, scope: Scope, saved: &SavedColumn) -> Match {
        let Some(placed) = self.layout.named_by(scope, self.slot).find(|c| c.name == saved.name) else {
            return Match::Unknown;
        };
        if placed.ty != saved.ty {
            return Match::OtherType { wanted: placed.ty.clone() };
        }
        let wanted = (self.unit)(scope, &saved.name);
        if wanted != saved.unit {
            return Match::OtherUnit { wanted };
        }
        Match::Restored { offset: placed.offset }
    }
}

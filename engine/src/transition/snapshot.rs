//! Saves what the policy that runs knows to a file, and restores it: under the lock, after what a killed command left is in order.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Scope;
use state_migrate::snapshot::Meta;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::pins::Pins;
use crate::host::scopes::SCOPES;
use crate::host::worker_pool::WorkerPool;
use crate::observe::report::Restored;
use crate::observe::snapshot::apply;
use crate::observe::snapshot::boot_id;
use crate::observe::snapshot::prepare;
use crate::observe::snapshot::take;
use crate::os::clock::unix_time;
use crate::transition::effect::Before;
use crate::transition::recover;

/// What was saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// The policy, as `name version`.
    pub policy: String,
    /// By scope: columns and rows.
    pub scopes: Vec<SavedScope>,
}

/// What was saved of one scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedScope {
    /// `task`, `cgroup`, …
    pub scope: String,
    /// Columns.
    pub columns: usize,
    /// Records.
    pub records: usize,
}

/// Save what the running policy knows into a file. Also of a host that the kernel took off, whose records are left.
///
/// # Errors
/// There is no host, or [`Error::Snapshot`]; a file that was there is untouched then.
pub fn save(pins: &Pins, path: &Path, with_tasks: bool) -> Result<Saved> {
    let _lock = pins.lock()?;
    let mut host = match Host::running(pins) {
        Err(Error::Ejected { .. } | Error::Detached { .. }) => Host::pinned(pins)?,
        other => other?,
    };
    if host.attached {
        recover::recover(&mut host)?;
    }
    // So that every record is up to date. Only of a host that is taken off something may be pending still.
    let cut_off = host.registry.pending.as_ref().filter(|_| recover::is_committed(&host));
    let sweeper = cut_off.and_then(|pending| pending.sweeper);
    let swept = host.sweep_all(&SCOPES.each_ref(), None, sweeper, &WorkerPool::spawn());
    swept.into_iter().try_for_each(|swept| swept.map(drop))?;
    let slot = host.data.active().slot;
    let info = host.registry.slot(slot).cloned().ok_or(Error::NothingRunning)?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let meta = Meta {
        created_unix: unix_time(),
        boot_id: boot_id()?,
        policy: info.policy.clone(),
        version: info.version.clone(),
        kernel: kernel.trim().to_string(),
    };
    let snapshot = take(&host, &info.schema, slot, meta, with_tasks)?;
    snapshot.write(path)?;
    let scope = |scope: Scope, columns: usize, records: usize| SavedScope {
        scope: scope.to_string(),
        columns,
        records,
    };
    Ok(Saved {
        policy: info.title(),
        scopes: vec![
            scope(Scope::Task, snapshot.tasks.columns().len(), snapshot.tasks.keys().len()),
            scope(Scope::Cgroup, snapshot.cgroups.columns().len(), snapshot.cgroups.keys().len()),
            scope(Scope::Cpu, snapshot.cpus.columns().len(), snapshot.cpus.keys().len()),
            scope(Scope::Global, snapshot.global.columns().len(), snapshot.global.keys().len()),
        ],
    })
}

/// Restore into the policy that runs.
///
/// # Errors
/// Nothing runs, [`Error::Snapshot`], or the records cannot be written.
pub fn restore(pins: &Pins, path: &Path) -> Result<Restored> {
    let _lock = pins.lock()?;
    let before = Before::look(pins);
    before.compare(pins, restore_into_running(pins, path))
}

fn restore_into_running(pins: &Pins, path: &Path) -> Result<Restored> {
    let mut host = Host::running(pins)?;
    recover::recover(&mut host)?;
    let slot = host.data.active().slot;
    let info = host.registry.slot(slot).cloned().ok_or(Error::NothingRunning)?;
    let prepared = prepare(path, &info.schema, (&info.policy, &info.version))?;
    apply(&host, &prepared, &info.schema, slot)
}

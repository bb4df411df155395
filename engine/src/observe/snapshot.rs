//! Snapshots of a host: what its policy knows, to a file and back. The file's form and what may go where are
//! `state_migrate::snapshot`'s; here the records are read and written.

mod records;

use crate::observe::report::Restored;
use crate::observe::report::RestoredScope;
use std::path::Path;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use state_migrate::Layout;
use state_migrate::Row;
use state_migrate::Schema;
use state_migrate::Scope;
use state_migrate::Snapshot;
use state_migrate::snapshot::BootId;
use state_migrate::snapshot::CgroupPath;
use state_migrate::snapshot::Meta;
use state_migrate::snapshot::NoKey;
use state_migrate::snapshot::Pick;
use state_migrate::snapshot::Same;
use state_migrate::snapshot::Selection;
use state_migrate::snapshot::TaskKey;
use state_migrate::snapshot::convert;
use state_migrate::snapshot::restore as match_columns;

use self::records::Records;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;

pub(crate) fn take(host: &Host, schema: &Schema, slot: u8, meta: Meta, with_tasks: bool) -> Result<Snapshot> {
    let select = |scope: Scope| {
        let column = |name: &str| schema.scopes.get(&scope).into_iter().flatten().find(|c| c.name == name);
        Selection::new(&host.registry.layout, scope, slot.into(), |placed| {
            let declared = column(&placed.name);
            match declared.and_then(|c| c.unit()) {
                _ if declared.is_some_and(|c| c.momentary) => Pick::Skip,
                Some(unit) => Pick::SaveIn(unit.to_string()),
                None => Pick::Save,
            }
        })
    };
    let records = Records::load(host)?;
    let tasks = select(Scope::Task);
    let tasks =
        if with_tasks && !tasks.is_empty() { tasks.table(records.tasks()?)? } else { Default::default() };
    let cgroups = select(Scope::Cgroup);
    let cgroups = if cgroups.is_empty() { Default::default() } else { cgroups.table(cgroups_of(host)?)? };
    let mut cpus = Vec::new();
    for cpu in 0..libbpf_rs::num_possible_cpus().trying("cannot count the CPUs")? as u32 {
        cpus.extend(record(host, Scope::Cpu, cpu)?.map(|record| (cpu, record)));
    }
    let global = record(host, Scope::Global, 0)?.map(|record| (NoKey, record));
    Ok(Snapshot {
        meta,
        tasks,
        cgroups,
        cpus: select(Scope::Cpu).table(cpus)?,
        global: select(Scope::Global).table(global)?,
    })
}

fn record(host: &Host, scope: Scope, key: u32) -> Result<Option<Vec<u8>>> {
    let Some(map) = host.records(scope) else { return Ok(None) };
    map.lookup(&key.to_ne_bytes(), MapFlags::ANY).trying(format!("cannot read a record of a {scope}"))
}

fn cgroups_of(host: &Host) -> Result<Vec<(CgroupPath, Vec<u8>)>> {
    let mut found = Vec::new();
    for (path, dir) in records::cgroups()? {
        use std::os::fd::AsRawFd as _;
        // No record: made since the sweep, and empty.
        if let Some(record) = record(host, Scope::Cgroup, dir.as_raw_fd() as u32)? {
            found.push((CgroupPath::new(&path)?, record));
        }
    }
    Ok(found)
}

/// Read a snapshot and bring it into the columns of a policy.
///
/// # Errors
/// [`Error::Snapshot`]
pub(crate) fn prepare(path: &Path, schema: &Schema, policy: (&str, &str)) -> Result<Prepared> {
    let snapshot = Snapshot::read(path)?;
    let saved_by = format!("{} {}", snapshot.meta.policy, snapshot.meta.version);
    let version = (snapshot.meta.policy.as_str(), snapshot.meta.version.as_str()) == policy;
    let same = Same { version, boot: snapshot.meta.boot_id == boot_id()? };
    let converted = convert(&snapshot, schema, same)?;
    Ok(Prepared { saved_by, snapshot: converted.snapshot, rows: converted.rows })
}

/// A snapshot in the columns of the policy that it is for.
#[derive(Debug)]
pub struct Prepared {
    saved_by: String,
    snapshot: Snapshot,
    rows: Vec<Row>,
}

/// Store what a snapshot has for the policy in `slot` into the host's records, which need not be attached. Each value is
/// stored whole, and beside it nothing is touched.
///
/// # Errors
/// The host's records cannot be written.
pub(crate) fn apply(host: &Host, prepared: &Prepared, schema: &Schema, slot: u8) -> Result<Restored> {
    let layout: &Layout = &host.registry.layout;
    let boot = boot_id()?;
    let unit = |scope: Scope, name: &str| {
        let column = schema.scopes.get(&scope).into_iter().flatten().find(|c| c.name == name);
        column.and_then(|c| c.unit().map(str::to_string))
    };
    let matched = match_columns(&prepared.snapshot, layout, slot.into(), boot, unit);
    let records = Records::load(host)?;
    let mut scopes = Vec::new();
    let mut count = |scope: Scope, counted: (u64, u64)| {
        let (restored, gone) = counted;
        scopes.push(RestoredScope { scope: scope.to_string(), restored, gone });
    };
    count(
        Scope::Task,
        records
            .store(Scope::Task, matched.tasks.records(), |k: &TaskKey| Some((k.pid.into(), k.start_ns)))?,
    );
    let root = records::cgroup_root()?;
    count(
        Scope::Cgroup,
        records.store(Scope::Cgroup, matched.cgroups.records(), |path: &CgroupPath| {
            Some((records::cgroup_id(&root.join(path.relative()))?, 0))
        })?,
    );
    count(Scope::Cpu, records.store(Scope::Cpu, matched.cpus.records(), |cpu| Some(((*cpu).into(), 0)))?);
    count(Scope::Global, records.store(Scope::Global, matched.global.records(), |_| Some((0, 0)))?);
    Ok(Restored {
        saved_by: prepared.saved_by.clone(),
        columns: prepared.rows.clone(),
        scopes,
        other_boot: prepared.snapshot.meta.boot_id != boot,
    })
}

pub(crate) fn boot_id() -> Result<BootId> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").trying("cannot read the boot id")?;
    Ok(text.parse()?)
}

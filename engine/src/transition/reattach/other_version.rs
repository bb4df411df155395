//! Replace a host of another version: one that speaks another ABI than this program, but whose records have the same
//! form. Its programs, shared memory and program arrays go; its records stay, and the layout says where each column is.
//! The policies that were loaded in it were built for its ABI, so there is no rollback across this.
//!
//! The new host is made in a folder of its own beside the pins. What the folder is called says how far it came:
//!
//! - `next`: it is being made. The old host runs; the next command throws the folder away.
//! - `ready`: the old host is being detached and this one attached. The next command goes on with that.
//! - `moving`: it is attached, and its pins are being moved to their place. The next command goes on with that.

use crate::transition::finish;
use crate::transition::plan;
use crate::transition::prepare;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use libbpf_rs::MapCore;
use serde::Deserialize;
use state_migrate::Layout;

use super::DETACH_TIMEOUT;
use super::Switched;
use super::arm;
use super::attach;
use crate::candidate::load;
use crate::candidate::load::AttachConstraint;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::abi;
use crate::host::abi::Active;
use crate::host::attach_config::AttachConfig;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::HOST_MAP;
use crate::host::names::REGISTRY_MAP;
use crate::host::object;
use crate::host::pins::Pins;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::Pending;
use crate::host::registry::Reattach;
use crate::host::registry::Registry;
use crate::host::requirements;
use crate::host::resident::Resident as _;
use crate::host::scopes;
use crate::host::scopes::SCOPES;
use crate::kernel::btf::KernelBtf;
use crate::kernel::messages::KernelLog;
use crate::kernel::sysfs;
use crate::observe::report::Report;
use crate::observe::report::Timings;
use crate::os::clock::Clock;
use crate::transition::interrupt;
use crate::transition::kernel::Kernel;
use crate::transition::recover;

const NEXT: &str = "next";

/// What is read of the host of another version.
#[derive(Debug)]
pub struct Old {
    /// Where its columns stand.
    pub layout: Layout,
    /// What runs in it.
    pub active: Active,
    registry: OldRegistry,
}

/// The part of its registry that is needed.
#[derive(Debug, Deserialize)]
struct OldRegistry {
    records: Option<u32>,
    layout: Layout,
    loads: u64,
    queue_ids: u64,
    generations: Vec<Generation>,
    pending: Option<Begun>,
    #[serde(flatten)]
    terms: AttachConfig,
}

/// What was begun in it.
#[derive(Debug, Deserialize)]
struct Begun {
    generation: Generation,
}

impl Old {
    /// Read it.
    ///
    /// # Errors
    /// [`Error::OtherRecords`] when its state has another form.
    pub fn read(pins: &Pins) -> Result<Old> {
        let page = Mapped::first_page(&pins.map(HOST_MAP)?)?;
        let (theirs, active) = (page.abi(), page.active());
        let other = |why: String| Error::OtherRecords { theirs, why };
        let mut registry: OldRegistry = Registry::load_as(&pins.map(REGISTRY_MAP)?)
            .map_err(|e| other(format!("its registry cannot be read ({e})")))?;
        let records = registry.records.unwrap_or(1);
        if records != abi::RECORDS {
            return Err(other(format!("its records are of version {records}, not {}", abi::RECORDS)));
        }
        for scope in &SCOPES {
            let size = scopes::value_size(scope);
            let theirs = pins.map(scope.map)?.value_size();
            if theirs != size {
                return Err(other(format!("a record of a {} has {theirs} bytes, not {size}", scope.scope)));
            }
        }
        // As `Registry::settle`.
        if let Some(done) = registry.pending.take_if(|begun| begun.generation.number == page.closed()) {
            registry.generations.push(done.generation);
        }
        if registry.pending.is_some() {
            return Err(other(
                "a swap was cut off, which the program that began it has to finish".to_string(),
            ));
        }
        Ok(Old { layout: registry.layout.clone(), active, registry })
    }

    /// What runs, as `name version`.
    pub fn running(&self) -> Option<String> {
        self.generation().map(Generation::title)
    }

    fn generation(&self) -> Option<&Generation> {
        self.registry.generations.iter().rev().find(|g| g.number == self.active.generation)
    }

    /// The slot for the new policy, and the layout that it is planned against: the running policy's columns alone.
    pub fn room(&self) -> (u8, Layout) {
        let slots = abi::NR_SLOTS as u8;
        let mut layout = self.layout.clone();
        (0..slots).filter(|s| *s != self.active.slot).for_each(|s| layout.evict(s.into()));
        // The layout of an older host does not say whose the columns are.
        if let Some(running) = self.generation() {
            layout.policies.insert(self.active.slot.into(), running.policy.clone());
        }
        ((self.active.slot + 1) % slots, layout)
    }
}

/// Replace it, with `policy` in the new one.
pub(crate) fn replace(pins: &Pins, policy: &Policy) -> Result<(Host, Loaded, Report)> {
    let replaced = make_and_switch(pins, policy);
    // What failed before the old host was touched.
    let next = pins.beside(NEXT);
    if replaced.is_err() && next.dir().exists() {
        next.remove()?;
    }
    replaced
}

fn make_and_switch(pins: &Pins, policy: &Policy) -> Result<(Host, Loaded, Report)> {
    let mut clock = Clock::start();
    let old = Old::read(pins)?;
    requirements::check_attach()?;
    let kernel = KernelBtf::read()?;
    let inspected = policy.inspect()?;
    let open_ns = clock.lap();

    let mut registry = Registry::new();
    let (slot, layout) = old.room();
    (registry.layout, registry.loads, registry.queue_ids) =
        (layout, old.registry.loads, old.registry.queue_ids);
    registry.generations = old.registry.generations.clone();
    let plan = plan::plan(&mut registry, &inspected, Some(old.active.slot), slot, true)?;
    let queue_rows = registry.queue_rows(old.active.slot, &inspected.schema.queues);
    let queues = registry.claim_queues(&inspected.schema, slot, None)?.ids();
    let terms = old.registry.terms.extended_for(&load::asks_of(policy, &kernel)?);
    let plan_ns = clock.lap();

    let mut change = interrupt::change()?;
    let next = make_next(pins)?;
    let mut open = object::open_host(&kernel, &terms)?;
    for mut map in open.maps_mut() {
        if SCOPES.iter().any(|s| map.name() == s.map) {
            map.reuse_pinned_map(pins.map_path(&map.name().to_string_lossy()))
                .trying("cannot take over the host's records")?;
        }
    }
    let mut object = object::load_host(open)?;
    next.pin_host(&mut object)?;
    let mut host = Host::make(&next)?;
    // The host's empty slots must not count as live while they are filled.
    host.data.commit(old.active);
    let home = LoadTarget {
        layout: &plan.layout,
        slot,
        load: registry.loads + 1,
        queues: &queues,
        on: AttachConstraint::Any,
    };
    let loaded = load::load_for_host(policy, &inspected, &kernel, &host.shared(), &home)?;
    let number = old.active.generation + 1;
    let generation = plan::record_load(&mut registry, policy, &inspected, &loaded, Kind::Swap, slot, number);
    let load_ns = clock.lap();

    let scopes = plan::scopes_to_sweep(&plan);
    let epoch = old.active.epoch + u32::from(!scopes.is_empty());
    let after = Active { slot, generation: number, epoch };
    let reattach = Some(Reattach { from: terms.clone(), to: terms.clone() });
    registry.terms = terms;
    let sweeper = plan::caller(&plan);
    registry.pending = Some(Pending { generation: generation.clone(), epoch, sweeper, hold: None, reattach });
    prepare::prepare(&mut host, registry, &plan, &loaded, after, &[])?;
    let mut report = Report::new(&generation, old.running());
    report.timings.prepare_ns = clock.lap();

    change.decide()?;
    let switched = switch(pins, &mut host, &mut object, after)?;
    switched.report(&mut report);
    clock.lap();
    finish::finish(&mut host, &mut report, &scopes, None, sweeper, &mut clock)?;
    // The old policies are gone, and with them the way back.
    host.registry.layout.evict(old.active.slot.into());
    host.save()?;

    report.tell(&plan);
    report.queues = queue_rows;
    report.timings = Timings { open_ns, plan_ns, load_ns, total_ns: clock.total(), ..report.timings };
    Ok((host, loaded, report))
}

fn switch(pins: &Pins, host: &mut Host, object: &mut libbpf_rs::Object, after: Active) -> Result<Switched> {
    let old = if pins.link().exists() { Some(pins.attached()?) } else { None };
    // Nothing is attached to this shared memory yet. Before the rename: from there on it is what is to run.
    arm(host, after);
    let ready = pins.ready();
    rename(host.pins.dir(), ready.dir())?;
    host.pins = ready;

    let mut laps = Clock::start();
    if let Some(old) = &old {
        super::detach(pins, old)?;
    }
    let off = super::wait_until_off(pins);
    let detach_ns = laps.lap();
    if let Err(error) = off.and_then(|()| attach(host, object)) {
        return Err(restore_previous(pins, host, old.as_ref(), error));
    }
    let (attach_ns, gap_ns) = (laps.lap(), laps.total());
    rename(host.pins.dir(), pins.moving().dir())?;
    move_over(pins)?;
    *host = Host::running(pins)?;
    recover::remake_queues(host)?;
    Ok(Switched { detach_ns, swept: Vec::new(), sweep_ns: 0, commit_ns: 0, attach_ns, gap_ns })
}

fn restore_previous(
    pins: &Pins,
    host: &Host,
    old: Option<&<Pins as Kernel>::Attached>,
    error: Error,
) -> Error {
    let again = old.map(|old| {
        super::wait_until_off(pins)?;
        let mut log = KernelLog::mark();
        super::attach_again(pins, old)?;
        match pins.wait_until_enabled(|| true, DETACH_TIMEOUT) {
            true => Ok(()),
            false => Err(super::not_enabled(pins, String::new(), log.words())),
        }
    });
    let removed = host.pins.remove();
    match again.map(|again| again.and(removed)) {
        Some(Ok(())) => Error::PutBack { source: Box::new(error) },
        Some(Err(again)) => Error::NotPutBack { source: Box::new(error), again: Box::new(again) },
        None => error,
    }
}

/// Finish, or throw away, what a replacement that was killed left.
pub(crate) fn finish_move(pins: &Pins) -> Result<()> {
    let (next, ready, moving) = (pins.beside(NEXT), pins.ready(), pins.moving());
    if next.dir().exists() {
        next.remove()?;
    }
    if ready.dir().exists() {
        log::warn!("the replacement of the host by one of another version was cut off: going on with it");
        if pins.link().exists() {
            super::detach(pins, &pins.attached()?)?;
            super::wait_until_off(pins)?;
        }
        if !ready.link().exists() || sysfs::state() != "enabled" {
            let mut host = Host::pinned(&ready)?;
            let kernel = KernelBtf::read()?;
            let mut object = ready.load_host(&kernel, &host.registry.terms)?;
            ready.retire_link()?;
            let active = host.data.active();
            arm(&host, active);
            attach(&mut host, &mut object)?;
        }
        rename(ready.dir(), moving.dir())?;
    }
    if moving.dir().exists() { move_over(pins) } else { Ok(()) }
}

/// Move the pins of the new host to their place. The link goes first: while it is in the folder nothing was moved, and
/// what is in the way is the old host's.
fn move_over(pins: &Pins) -> Result<()> {
    let moving = pins.moving();
    if moving.link().exists() {
        for entry in files(pins)? {
            fs::remove_file(&entry).trying(format!("cannot unpin {}", entry.display()))?;
        }
        rename(&moving.link(), &pins.link())?;
    }
    for entry in files(&moving)? {
        let name = entry.file_name().unwrap_or_default();
        rename(&entry, &pins.dir().join(name))?;
    }
    fs::remove_dir(moving.dir()).trying("cannot remove the folder of the new host's pins")
}

fn files(pins: &Pins) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(pins.dir()).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.trying(format!("cannot read {}", pins.dir().display()))?;
    Ok(entries.into_iter().map(|e| e.path()).filter(|p| !p.is_dir()).collect())
}

fn make_next(pins: &Pins) -> Result<Pins> {
    let next = pins.beside(NEXT);
    if next.dir().exists() {
        next.remove()?;
    }
    fs::DirBuilder::new().mode(0o700).create(next.dir()).trying("cannot make a folder for the new host")?;
    Ok(next)
}

fn rename(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::rename(from, to).trying(format!("cannot rename {} to {}", from.display(), to.display()))
}

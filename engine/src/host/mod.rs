//! The host that is running: found through its pins, driven through its maps and SYSCALL programs.

pub mod abi;
pub mod attach_config;
pub mod compiled_sweep;
pub mod environment;
pub mod loaded;
pub mod lock;
pub mod memory;
pub mod names;
pub mod object;
pub mod pins;
pub mod queues;
pub mod registry;
pub mod requeue;
pub mod requirements;
pub mod resident;
pub mod scopes;
pub mod steps;
pub mod sweep;
pub mod worker_pool;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use state_migrate::Plan;
use state_migrate::Scope;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::Active;
use crate::host::abi::NR_SLOTS;
use crate::host::abi::QueueArgs;
use crate::host::compiled_sweep::Compiled;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::*;
use crate::host::object::ENQUEUE_DEFAULT;
use crate::host::pins::Pins;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;
use crate::host::resident::Resident;
use crate::host::scopes::SCOPES;
use crate::host::scopes::SWEEP_UNTRACKED;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::Sweeper;
use crate::host::sweep::Swept;
use crate::host::worker_pool::WorkerPool;
use crate::kernel::bpf;
use crate::kernel::sysfs;
use crate::kernel::topology::Topology;
use crate::os::priority;
use crate::os::realtime::RealtimeGuard;

const SETTLE_MAP: &str = "scxu_settle";
const SETTLE_INNER: &str = "scxu_settle_inner";
const OP_PREFIX: &str = "op_";
/// Map of the numbers of cgroups, which policies read to find a cgroup's queue.
const CGROUP_NUMBERS: &str = "scxu_cgroup_numbers";
/// Map of the work item and the timer behind them: the kernel cancels both when nobody holds it.
const CGROUP_WORK: &str = "scxu_cgroup_work";
/// Map of the timer that hands tasks over after a commit, and the program that starts it: see `bpf/host/handover.bpf.h`.
const HANDOVER: &str = "scxu_handover";
const START_HANDOVER: &str = "start_handover";
/// Map of what the kernel's debug dump said last. Only `Host::dump` reads it: one that was started by an earlier version
/// has none.
const DUMP: &str = "scxu_dump";
/// Map of what state each number is in.
const NUMBERS: &str = ".data.scxu_numbers";

/// See the module. `K` is the kernel that it is resident in.
#[derive(Debug)]
pub struct Host<K: Resident = Pins> {
    /// Its pins.
    pub pins: K,
    /// Its shared memory.
    pub data: Mapped,
    /// Its registry, as last read or written by this process.
    pub registry: Registry,
    /// What an earlier command left and this process finished or undid, in words.
    pub(crate) found: Option<String>,
    /// Set from a swap's commit on, until the swap has been reported.
    pub(crate) urgent: Option<RealtimeGuard>,
    /// Does the kernel run it? If not, what is pinned is all there is of it, and there are no queues.
    pub(crate) attached: bool,
    pub(crate) maps: K::Maps,
}

/// The host's maps, opened.
#[derive(Debug)]
pub struct Maps {
    registry: MapHandle,
    memory: MapHandle,
    cgroup_numbers: MapHandle,
    task_table: MapHandle,
    records: Vec<(&'static str, MapHandle)>,
    arrays: Vec<(String, MapHandle)>,
}

impl<K: Resident> Host<K> {
    /// The host that runs, or [`Error::NothingRunning`].
    ///
    /// # Errors
    /// Also [`Error::Ejected`] when the kernel took it off, [`Error::OtherScheduler`] when another runs instead,
    /// [`Error::HiddenPins`] when that is a host whose pins are elsewhere, or its pins or registry cannot be read.
    pub fn running(pins: &K) -> Result<Host<K>> {
        if pins.is_half_replaced() {
            return Err(Error::HalfReplaced);
        }
        if !pins.has_link() {
            return Err(match pins.state().as_str() {
                "disabled" => Host::why_detached(pins)?,
                _ => pins.unknown_scheduler(),
            });
        }
        let mut host = Host::pinned(pins)?;
        let state = pins.state();
        // One that was ejected, though a host of the same name runs, whose pins are elsewhere.
        let ejected = host.data.exit().is_some();
        if ejected && let Some(hidden) = pins.hidden_host() {
            return Err(hidden);
        }
        if state != "enabled" || ejected || !pins.ops().starts_with(NAME) {
            return Err(Error::Ejected { reason: host.data.exit_reason().unwrap_or_default() });
        }
        host.attached = true;
        Ok(host)
    }

    /// Without a link: nothing at all, or the state of a host that is attached no more.
    fn why_detached(pins: &K) -> Result<Error> {
        if !pins.has_state() {
            return Ok(Error::NothingRunning);
        }
        let (registry, reason) = match Host::pinned(pins) {
            Ok(host) => (host.registry, host.data.exit_reason()),
            // A start that was killed before its registry was whole.
            Err(Error::Registry { .. } | Error::Bpf { .. }) => return Ok(Error::NothingRunning),
            Err(other) => return Err(other),
        };
        let why = match registry.pending {
            Some(_) => "a reattach was cut off".to_string(),
            None => {
                let reason = reason.unwrap_or_else(|| "it does not say why".to_string());
                format!("and the last one was taken off by the kernel ({reason})")
            }
        };
        Ok(if registry.has_run() { Error::Detached { why } } else { Error::NothingRunning })
    }

    /// What is pinned, as if the kernel did not run it.
    ///
    /// # Errors
    /// [`Error::OtherHost`], or the pins or registry cannot be read.
    pub(crate) fn pinned(pins: &K) -> Result<Host<K>> {
        let (maps, data) = pins.open()?;
        let mut registry = pins.load_registry(&maps)?;
        registry.settle(data.closed());
        Ok(Host { pins: pins.clone(), data, registry, found: None, urgent: None, attached: false, maps })
    }

    /// Make what has just been pinned a host with four empty slots.
    pub(crate) fn make(pins: &K) -> Result<Host<K>> {
        let (maps, data) = pins.open()?;
        let registry = Registry::new();
        pins.save_registry(&maps, &registry)?;
        (0..NR_SLOTS as u8).try_for_each(|slot| pins.empty(&maps, slot))?;
        data.set_topology(&pins.topology()?);
        data.set_abi(abi::ABI);
        Ok(Host { pins: pins.clone(), data, registry, found: None, urgent: None, attached: false, maps })
    }

    /// The policy that the control word names.
    pub fn active_policy(&self) -> Option<&SlotInfo> {
        self.registry.slot(self.data.active().slot)
    }

    /// Write the registry.
    pub(crate) fn save(&self) -> Result<()> {
        // Before any of them is made.
        self.data.set_queues(&self.registry.queues.iter().map(|q| self.family(q)).collect::<Vec<_>>());
        self.pins.save_registry(&self.maps, &self.registry)
    }

    /// Fill an idle slot with a policy's programs.
    pub(crate) fn fill(&self, slot: u8, loaded: &Loaded<K::Object>) -> Result<()> {
        debug_assert_ne!(self.data.active().slot, slot, "the live slot is never filled");
        self.pins.fill(&self.maps, slot, loaded)?;
        self.data.set_lacks(slot, loaded.lacks);
        self.data.set_caller(slot, loaded.load);
        Ok(())
    }

    /// Empty a slot: its programs are freed once no op is in them.
    pub(crate) fn empty(&self, slot: u8) -> Result<()> {
        self.pins.empty(&self.maps, slot)
    }

    /// Wait until no op that began before the call is still in flight.
    pub(crate) fn settle(&self) -> Result<()> {
        self.pins.settle()
    }

    /// Start the timer that hands tasks over; `settled`: a grace period is over since the commit. Without it the host's
    /// dispatch and this process hand them over, so a failure is no reason to stop.
    pub(crate) fn start_handover(&self, settled: bool) {
        if !self.attached {
            return;
        }
        match self.pins.start_handover(settled) {
            Ok(0) => {}
            Ok(code) => log::warn!("the host's timer for the hand-over does not start: error {code}"),
            Err(e) => log::warn!("the host's timer for the hand-over does not start: {e}"),
        }
    }
}

impl Host {
    /// Pin everything that must outlive this process, out of the host's freshly loaded object.
    pub(crate) fn pin(pins: &Pins, object: &mut Object) -> Result<()> {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let wanted = [
                HOST_MAP,
                REGISTRY_MAP,
                SETTLE_MAP,
                SETTLE_INNER,
                CGROUP_NUMBERS,
                CGROUP_WORK,
                HANDOVER,
                NUMBERS,
                DUMP,
                LOST_TASKS,
                TASK_TABLE,
                FREE_ROWS,
            ]
            .contains(&name.as_str())
                || SCOPES.iter().any(|s| s.map == name)
                || map.map_type() == MapType::ProgArray;
            if wanted {
                map.pin(pins.map_path(&name)).trying(format!("cannot pin the host's map {name}"))?;
            }
        }
        for mut program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if queues::PROGRAMS.contains(&name.as_str())
                || name == requeue::PROGRAM
                || name == ENQUEUE_DEFAULT
                || name == TRACK_UNTRACKED
                || name == START_HANDOVER
                || scopes::sweeps(&name)
            {
                program
                    .pin(pins.program_path(&name))
                    .trying(format!("cannot pin the host's program {name}"))?;
            }
        }
        Ok(())
    }

    /// The kernel's debug dump of when it took the host off; empty if there is none.
    pub fn dump(&self) -> String {
        let map = self.pins.map(DUMP).ok();
        let bytes = map.and_then(|map| map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten());
        let bytes = bytes.unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// The kernel's id of its shared memory, which no other host has had since boot; `None` if it cannot be read.
    pub fn identity(&self) -> Option<u32> {
        self.maps.memory.info().ok().map(|map| map.info.id)
    }

    /// The maps that a policy shares with the host.
    pub(crate) fn shared(&self) -> Vec<(&'static str, &MapHandle)> {
        let maps = &self.maps;
        let records = maps.records.iter().map(|(name, map)| (*name, map));
        let others = [
            (HOST_MAP, &maps.memory),
            (CGROUP_NUMBERS, &maps.cgroup_numbers),
            (TASK_TABLE, &maps.task_table),
        ];
        records.chain(others).collect()
    }

    /// The map of a scope's records, for readers.
    pub fn records(&self, scope: Scope) -> Option<&MapHandle> {
        let name = SCOPES.iter().find(|s| s.scope == scope)?.map;
        self.maps.records.iter().find(|(n, _)| *n == name).map(|(_, map)| map)
    }

    /// The map of its shared memory, for readers.
    pub fn memory(&self) -> &MapHandle {
        &self.maps.memory
    }

    /// The kernel's ids of the programs in a slot.
    pub(crate) fn program_ids(&self, slot: u8) -> impl Iterator<Item = u32> {
        let key = u32::from(slot).to_ne_bytes();
        let looked_up =
            self.maps.arrays.iter().filter_map(move |(_, array)| array.lookup(&key, MapFlags::ANY).ok()?);
        looked_up.filter_map(|id| id.try_into().ok().map(u32::from_ne_bytes))
    }

    pub(crate) fn program(&self, name: &str) -> Result<OwnedFd> {
        self.pins.program(name)
    }
}

impl Pins {
    /// Pin what must outlive the policy's process: the sweep's programs that a policy with conversions has of its own,
    /// which a later command may need, and the maps that the kernel clears with user space's last reference. The pins are
    /// numbered, because two maps may differ in nothing but a character that bpffs does not take.
    fn pin_own(&self, slot: u8, loaded: &Loaded) -> Result<()> {
        self.unpin_own(slot)?;
        for mut program in loaded.object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if scopes::sweeps(&name) {
                program
                    .pin(self.policy_program_path(slot, &name))
                    .trying(format!("cannot pin the policy's program {name}"))?;
            }
        }
        for (number, name) in loaded.held.iter().enumerate() {
            let Some(map) = loaded.object.maps().find(|map| map.name() == name.as_str()) else { continue };
            // Through a handle: the object's own map would take the pin for where it is to be found again.
            let mut handle =
                MapHandle::try_from(&map).trying(format!("cannot hold the policy's map {name}"))?;
            handle
                .pin(self.policy_map_path(slot, number, name))
                .trying(format!("cannot pin the policy's map {name}"))?;
        }
        Ok(())
    }

    fn unpin_own(&self, slot: u8) -> Result<()> {
        self.policy_maps(slot)?.iter().try_for_each(|map| self.unpin(map))?;
        let mut sweeps = SCOPES.iter().map(|s| s.sweep).chain([SWEEP_UNTRACKED]);
        sweeps.try_for_each(|name| self.unpin(&self.policy_program_path(slot, name)))
    }

    /// A slot has an `enqueue` always: see `bpf/host/main.bpf.c`.
    fn set_slot(&self, op: &str, array: &MapHandle, slot: u8, program: Option<BorrowedFd<'_>>) -> Result<()> {
        if op == "enqueue" && program.is_none() {
            let default = self.program(ENQUEUE_DEFAULT)?;
            return bpf::set_slot(array, slot, Some(default.as_fd()));
        }
        bpf::set_slot(array, slot, program)
    }
}

impl Resident for Pins {
    type Object = Object;
    type Maps = Maps;
    type Compiled = Compiled;

    fn state(&self) -> String {
        sysfs::state()
    }

    fn ops(&self) -> String {
        sysfs::ops()
    }

    fn topology(&self) -> Result<Topology> {
        Topology::read()
    }

    fn has_link(&self) -> bool {
        self.link().exists()
    }

    fn has_state(&self) -> bool {
        self.map_path(REGISTRY_MAP).exists()
    }

    fn is_half_replaced(&self) -> bool {
        self.ready().dir().exists() || self.moving().dir().exists()
    }

    fn hidden_host(&self) -> Option<Error> {
        environment::hidden_host(self)
    }

    fn control_word(&self) -> Option<Active> {
        let map = self.map_path(HOST_MAP).exists().then(|| self.map(HOST_MAP).ok())??;
        Mapped::first_page(&map).ok().map(|page| page.active())
    }

    fn open(&self) -> Result<(Maps, Mapped)> {
        let memory = self.map(HOST_MAP)?;
        let theirs = Mapped::abi_of(&memory)?;
        if theirs != 0 && theirs != abi::ABI {
            return Err(Error::OtherHost { ours: abi::ABI, theirs });
        }
        let data = Mapped::new(&memory)?;
        let maps = Maps {
            registry: self.map(REGISTRY_MAP)?,
            memory,
            cgroup_numbers: self.map(CGROUP_NUMBERS)?,
            task_table: self.map(TASK_TABLE)?,
            records: SCOPES.iter().map(|s| Ok((s.map, self.map(s.map)?))).collect::<Result<_>>()?,
            arrays: arrays(self)?,
        };
        Ok((maps, data))
    }

    fn load_registry(&self, maps: &Maps) -> Result<Registry> {
        Registry::load(&maps.registry)
    }

    fn save_registry(&self, maps: &Maps, registry: &Registry) -> Result<()> {
        registry.save(&maps.registry)
    }

    fn fill(&self, maps: &Maps, slot: u8, loaded: &Loaded) -> Result<()> {
        for (op, array) in &maps.arrays {
            self.set_slot(op, array, slot, loaded.program(op))?;
        }
        self.pin_own(slot, loaded)
    }

    fn empty(&self, maps: &Maps, slot: u8) -> Result<()> {
        maps.arrays.iter().try_for_each(|(op, array)| self.set_slot(op, array, slot, None))?;
        self.unpin_own(slot)
    }

    fn settle(&self) -> Result<()> {
        let outer = self.map(SETTLE_MAP)?;
        let inner = self.map(SETTLE_INNER)?;
        let fd = inner.as_fd().as_raw_fd() as u32;
        outer
            .update(&0u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .trying("cannot wait for a grace period")
    }

    fn start_handover(&self, settled: bool) -> Result<i32> {
        bpf::run(&self.program(START_HANDOVER)?, START_HANDOVER, &mut u64::from(settled))
    }

    fn run_on_queue(&self, program: &str, args: &mut QueueArgs) -> Result<i32> {
        bpf::run(&self.program(program)?, program, args)
    }

    fn rescue(&self) -> Result<u64> {
        requeue::rescue(self)
    }

    fn compile(host: &Host, plan: &Plan) -> Option<Compiled> {
        if sysfs::tasks() < worker_pool::MANY {
            return None;
        }
        priority::lowered(|| Compiled::load(plan, &host.shared())).unwrap_or_else(|e| {
            log::warn!("the sweep takes longer: {e}");
            None
        })
    }

    fn sweep_all(
        host: &Host,
        scopes: &[&ScopeParts],
        compiled: Option<&Compiled>,
        slot: Option<u8>,
        workers: &WorkerPool,
    ) -> Vec<Result<Swept>> {
        host.sweep_scopes(scopes, Sweeper { compiled, slot }, workers)
    }

    fn walk_tasks(host: &Host) {
        host.sweep_nothing();
    }
}

/// The program arrays, one per op that this kernel knows.
fn arrays(pins: &Pins) -> Result<Vec<(String, MapHandle)>> {
    let prefix = format!("map_{OP_PREFIX}");
    let mut arrays = Vec::new();
    for entry in std::fs::read_dir(pins.dir()).trying("cannot read the pins")? {
        let name = entry.trying("cannot read the pins")?.file_name().to_string_lossy().into_owned();
        if let Some(op) = name.strip_prefix(&prefix) {
            arrays.push((op.to_string(), pins.map(&format!("{OP_PREFIX}{op}"))?));
        }
    }
    Ok(arrays)
}

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
pub mod scopes;
pub mod steps;
pub mod sweep;
pub mod worker_pool;

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use state_migrate::Scope;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::NR_SLOTS;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::*;
use crate::host::object::ENQUEUE_DEFAULT;
use crate::host::pins::Pins;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;
use crate::host::scopes::SCOPES;
use crate::host::scopes::SWEEP_UNTRACKED;
use crate::kernel::bpf;
use crate::kernel::sysfs;
use crate::kernel::topology::Topology;
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

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Its pins.
    pub pins: Pins,
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
    registry_map: MapHandle,
    host_map: MapHandle,
    cgroup_numbers: MapHandle,
    roster: MapHandle,
    records: Vec<(&'static str, MapHandle)>,
    arrays: Vec<(String, MapHandle)>,
}

impl Host {
    /// The host that runs, or [`Error::NothingRunning`].
    ///
    /// # Errors
    /// Also [`Error::Ejected`] when the kernel took it off, [`Error::OtherScheduler`] when another runs instead,
    /// [`Error::HiddenPins`] when that is a host whose pins are elsewhere, or its pins or registry cannot be read.
    pub fn running(pins: &Pins) -> Result<Host> {
        if pins.is_half_replaced() {
            return Err(Error::HalfReplaced);
        }
        if !pins.link().exists() {
            return Err(match sysfs::state().as_str() {
                "disabled" => Host::why_detached(pins)?,
                _ => environment::unknown_scheduler(pins),
            });
        }
        let mut host = Host::pinned(pins)?;
        let state = sysfs::state();
        // One that was ejected, though a host of the same name runs, whose pins are elsewhere.
        let ejected = host.data.exit().is_some();
        if ejected && let Some(hidden) = environment::hidden_host(pins) {
            return Err(hidden);
        }
        if state != "enabled" || ejected || !sysfs::ops().starts_with(NAME) {
            return Err(Error::Ejected { reason: host.data.exit_reason().unwrap_or_default() });
        }
        host.attached = true;
        Ok(host)
    }

    /// Without a link: nothing at all, or the state of a host that is attached no more.
    fn why_detached(pins: &Pins) -> Result<Error> {
        if !pins.map_path(REGISTRY_MAP).exists() {
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
    pub(crate) fn pinned(pins: &Pins) -> Result<Host> {
        let host_map = pins.map(HOST_MAP)?;
        let theirs = Mapped::abi_of(&host_map)?;
        if theirs != 0 && theirs != abi::ABI {
            return Err(Error::OtherHost { ours: abi::ABI, theirs });
        }
        let registry_map = pins.map(REGISTRY_MAP)?;
        let data = Mapped::new(&host_map)?;
        let mut registry = Registry::load(&registry_map)?;
        registry.settle(data.closed());
        Ok(Host {
            data,
            registry,
            registry_map,
            host_map,
            cgroup_numbers: pins.map(CGROUP_NUMBERS)?,
            roster: pins.map(TASK_TABLE)?,
            records: SCOPES.iter().map(|s| Ok((s.map, pins.map(s.map)?))).collect::<Result<_>>()?,
            arrays: arrays(pins)?,
            attached: false,
            found: None,
            urgent: None,
            pins: pins.clone(),
        })
    }

    /// Pin everything that must outlive this process, out of the host's freshly loaded object.
    pub(crate) fn pin(pins: &Pins, object: &mut Object) -> Result<Host> {
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
        Registry::new().save(&pins.map(REGISTRY_MAP)?)?;
        let host = Host::pinned(pins)?;
        (0..NR_SLOTS as u8).try_for_each(|slot| host.empty(slot))?;
        host.data.set_topology(&Topology::read()?);
        host.data.set_abi(abi::ABI);
        Ok(host)
    }

    /// The kernel's debug dump of when it took the host off; empty if there is none.
    pub fn dump(&self) -> String {
        let map = self.pins.map(DUMP).ok();
        let bytes = map.and_then(|map| map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten());
        let bytes = bytes.unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// The policy that the control word names.
    pub fn active_policy(&self) -> Option<&SlotInfo> {
        self.registry.slot(self.data.active().slot)
    }

    /// The kernel's id of its shared memory, which no other host has had since boot; `None` if it cannot be read.
    pub fn identity(&self) -> Option<u32> {
        self.host_map.info().ok().map(|map| map.info.id)
    }

    /// The maps that a policy shares with the host.
    pub(crate) fn shared(&self) -> Vec<(&'static str, &MapHandle)> {
        let records = self.records.iter().map(|(name, map)| (*name, map));
        let others =
            [(HOST_MAP, &self.host_map), (CGROUP_NUMBERS, &self.cgroup_numbers), (TASK_TABLE, &self.roster)];
        records.chain(others).collect()
    }

    /// The map of a scope's records, for readers.
    pub fn records(&self, scope: Scope) -> Option<&MapHandle> {
        let name = SCOPES.iter().find(|s| s.scope == scope)?.map;
        self.records.iter().find(|(n, _)| *n == name).map(|(_, map)| map)
    }

    /// The map of its shared memory, for readers.
    pub fn memory(&self) -> &MapHandle {
        &self.host_map
    }

    /// Write the registry.
    pub(crate) fn save(&self) -> Result<()> {
        // Before any of them is made.
        self.data.set_queues(&self.registry.queues.iter().map(|q| self.family(q)).collect::<Vec<_>>());
        self.registry.save(&self.registry_map)
    }

    /// Fill an idle slot with a policy's programs, and empty it for the ops that the policy lacks, but for `enqueue`.
    pub(crate) fn fill(&self, slot: u8, loaded: &Loaded) -> Result<()> {
        debug_assert_ne!(self.data.active().slot, slot, "the live slot is never filled");
        for (op, array) in &self.arrays {
            self.set_slot(op, array, slot, loaded.program(op))?;
        }
        self.data.set_lacks(slot, loaded.lacks);
        self.data.set_caller(slot, loaded.load);
        self.pin_own(slot, loaded)
    }

    /// Pin what must outlive the policy's process: the sweep's programs that a policy with conversions has of its own,
    /// which a later command may need, and the maps that the kernel clears with user space's last reference. The pins are
    /// numbered, because two maps may differ in nothing but a character that bpffs does not take.
    fn pin_own(&self, slot: u8, loaded: &Loaded) -> Result<()> {
        self.unpin_own(slot)?;
        for mut program in loaded.object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if scopes::sweeps(&name) {
                program
                    .pin(self.pins.policy_program_path(slot, &name))
                    .trying(format!("cannot pin the policy's program {name}"))?;
            }
        }
        for (number, name) in loaded.held.iter().enumerate() {
            let Some(map) = loaded.object.maps().find(|map| map.name() == name.as_str()) else { continue };
            // Through a handle: the object's own map would take the pin for where it is to be found again.
            let mut handle =
                MapHandle::try_from(&map).trying(format!("cannot hold the policy's map {name}"))?;
            handle
                .pin(self.pins.policy_map_path(slot, number, name))
                .trying(format!("cannot pin the policy's map {name}"))?;
        }
        Ok(())
    }

    fn unpin_own(&self, slot: u8) -> Result<()> {
        self.pins.policy_maps(slot)?.iter().try_for_each(|map| self.pins.unpin(map))?;
        let mut sweeps = SCOPES.iter().map(|s| s.sweep).chain([SWEEP_UNTRACKED]);
        sweeps.try_for_each(|name| self.pins.unpin(&self.pins.policy_program_path(slot, name)))
    }

    /// Empty a slot: its programs are freed once no op is in them.
    pub(crate) fn empty(&self, slot: u8) -> Result<()> {
        self.arrays.iter().try_for_each(|(op, array)| self.set_slot(op, array, slot, None))?;
        self.unpin_own(slot)
    }

    /// A slot has an `enqueue` always: see `bpf/host/main.bpf.c`.
    fn set_slot(&self, op: &str, array: &MapHandle, slot: u8, program: Option<BorrowedFd<'_>>) -> Result<()> {
        if op == "enqueue" && program.is_none() {
            let default = self.program(ENQUEUE_DEFAULT)?;
            return bpf::set_slot(array, slot, Some(default.as_fd()));
        }
        bpf::set_slot(array, slot, program)
    }

    /// Wait until no op that began before the call is still in flight.
    pub(crate) fn settle(&self) -> Result<()> {
        let outer = self.pins.map(SETTLE_MAP)?;
        let inner = self.pins.map(SETTLE_INNER)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&inner.as_fd()) as u32;
        outer
            .update(&0u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .trying("cannot wait for a grace period")
    }

    /// Start the timer that hands tasks over; `settled`: a grace period is over since the commit. Without it the host's
    /// dispatch and this process hand them over, so a failure is no reason to stop.
    pub(crate) fn start_handover(&self, settled: bool) {
        if !self.attached {
            return;
        }
        let started = self.program(START_HANDOVER);
        let started = started.and_then(|p| bpf::run(&p, START_HANDOVER, &mut u64::from(settled)));
        match started {
            Ok(0) => {}
            Ok(code) => log::warn!("the host's timer for the hand-over does not start: error {code}"),
            Err(e) => log::warn!("the host's timer for the hand-over does not start: {e}"),
        }
    }

    /// The kernel's ids of the programs in a slot.
    pub(crate) fn program_ids(&self, slot: u8) -> impl Iterator<Item = u32> {
        let key = u32::from(slot).to_ne_bytes();
        let looked_up =
            self.arrays.iter().filter_map(move |(_, array)| array.lookup(&key, MapFlags::ANY).ok()?);
        looked_up.filter_map(|id| id.try_into().ok().map(u32::from_ne_bytes))
    }

    pub(crate) fn program(&self, name: &str) -> Result<OwnedFd> {
        self.pins.program(name)
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

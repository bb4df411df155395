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
pub mod running;
pub mod scopes;
pub mod steps;
pub mod sweep;
pub mod worker_pool;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use state_migrate::Plan;
use state_migrate::Scope;

use crate::error::Error;
use crate::error::Result;
use crate::host::abi::NR_SLOTS;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::*;
use crate::host::pins::Pins;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;
use crate::host::resident::Resident;
use crate::host::scopes::SCOPES;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::SweepTarget;
use crate::host::sweep::Swept;
use crate::host::worker_pool::WorkerPool;
use crate::os::realtime::RealtimeGuard;

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
    pub(crate) realtime: Option<RealtimeGuard>,
    /// Does the kernel run it? If not, what is pinned is all there is of it, and there are no queues.
    pub(crate) attached: bool,
    pub(crate) maps: K::Maps,
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
        let runs = |host: &Host<K>| {
            pins.state() == "enabled" && host.data.exit().is_none() && pins.ops().starts_with(NAME)
        };
        if !runs(&host) {
            // While the kernel enables or disables a scheduler it has not said yet what comes of it, or why.
            pins.wait_until_settled();
        }
        // One that was ejected, though a host of the same name runs, whose pins are elsewhere.
        if host.data.exit().is_some()
            && let Some(hidden) = pins.hidden_host()
        {
            return Err(hidden);
        }
        if !runs(&host) {
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
        Ok(Host { pins: pins.clone(), data, registry, found: None, realtime: None, attached: false, maps })
    }

    /// Make what has just been pinned a host with four empty slots.
    pub(crate) fn make(pins: &K) -> Result<Host<K>> {
        let (maps, data) = pins.open()?;
        let registry = Registry::new();
        pins.save_registry(&maps, &registry)?;
        (0..NR_SLOTS as u8).try_for_each(|slot| pins.empty(&maps, slot))?;
        data.set_topology(&pins.topology()?);
        data.set_abi(abi::ABI);
        Ok(Host { pins: pins.clone(), data, registry, found: None, realtime: None, attached: false, maps })
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

    /// The plan in instructions, for the sweep of many tasks, where that pays.
    pub(crate) fn compile(&self, plan: &Plan) -> Option<K::Compiled> {
        self.pins.compile(&self.maps, plan)
    }

    /// Bring every record of these scopes up to date: see [`Resident::sweep_all`].
    pub(crate) fn sweep_all(
        &self,
        scopes: &[&ScopeParts],
        compiled: Option<&K::Compiled>,
        slot: Option<u8>,
        workers: &WorkerPool,
    ) -> Vec<Result<Swept>> {
        self.pins.sweep_all(self.sweep_target(), scopes, compiled, slot, workers)
    }

    /// Sweep all tasks when there is nothing to do, ahead of a sweep for which there is.
    pub(crate) fn walk_tasks(&self) {
        self.pins.walk_tasks(self.sweep_target());
    }

    fn sweep_target(&self) -> SweepTarget<'_> {
        SweepTarget { data: &self.data, attached: self.attached }
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
        self.maps.shared()
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
}

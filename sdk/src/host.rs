//! The host that is running: found through its pins, driven through its maps and SYSCALL programs.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use state_migrate::Scope;

use crate::abi;
use crate::abi::SweepArgs;
use crate::bpf;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host_data::Mapped;
use crate::kernel;
use crate::load::Loaded;
use crate::pins::Pins;
use crate::queues;
use crate::registry::Registry;
use crate::report::Swept;
use crate::scopes::SCOPES;
use crate::scopes::ScopeParts;

/// Name that the kernel knows the host by.
pub const NAME: &str = "scx_upgrade";
/// Map of the shared memory.
pub(crate) const HOST_MAP: &str = ".data.scx_host";
const REGISTRY_MAP: &str = "scx_registry";
const SETTLE_MAP: &str = "scx_settle";
const SETTLE_INNER: &str = "scx_settle_inner";
const OP_PREFIX: &str = "op_";
/// Map of the numbers of cgroups, which policies read to find a cgroup's queue.
const CGROUP_NUMBERS: &str = "scx_cgroup_numbers";
/// Map of the work item and the timer behind them: the kernel cancels both when nobody holds it.
const CGROUP_WORK: &str = "scx_cgroup_work";

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Its pins.
    pub pins: Pins,
    /// Its shared memory.
    pub data: Mapped,
    /// Its books, as last read or written by this process.
    pub registry: Registry,
    registry_map: MapHandle,
    host_map: MapHandle,
    cgroup_numbers: MapHandle,
    records: Vec<(&'static str, MapHandle)>,
    arrays: Vec<(String, MapHandle)>,
}

impl Host {
    /// The host that runs, or [`Error::NothingRunning`].
    ///
    /// # Errors
    /// Also [`Error::Ejected`] when the kernel took it off, [`Error::OtherScheduler`] when another runs instead, or
    /// its pins or books cannot be read.
    pub fn running(pins: &Pins) -> Result<Host> {
        if !pins.link().exists() {
            return Err(match kernel::state().as_str() {
                "disabled" => Error::NothingRunning,
                state => Error::OtherScheduler { ops: kernel::ops(), state: state.to_string() },
            });
        }
        let host = Host::pinned(pins)?;
        let state = kernel::state();
        if state != "enabled" || !kernel::ops().starts_with(NAME) {
            return Err(Error::Ejected { reason: host.data.exit_reason().unwrap_or_default() });
        }
        let theirs = host.data.abi();
        if theirs != abi::ABI {
            return Err(Error::AbiMismatch { policy: abi::ABI, host: theirs });
        }
        Ok(host)
    }

    /// What is pinned, whether the kernel runs it or not.
    pub(crate) fn pinned(pins: &Pins) -> Result<Host> {
        let host_map = pins.map(HOST_MAP)?;
        let registry_map = pins.map(REGISTRY_MAP)?;
        Ok(Host {
            data: Mapped::new(&host_map)?,
            registry: Registry::load(&registry_map)?,
            registry_map,
            host_map,
            cgroup_numbers: pins.map(CGROUP_NUMBERS)?,
            records: SCOPES.iter().map(|s| Ok((s.map, pins.map(s.map)?))).collect::<Result<_>>()?,
            arrays: arrays(pins)?,
            pins: pins.clone(),
        })
    }

    /// Pin everything that must outlive this process, out of the host's freshly loaded object.
    pub(crate) fn pin(pins: &Pins, object: &mut Object) -> Result<Host> {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let wanted = [HOST_MAP, REGISTRY_MAP, SETTLE_MAP, SETTLE_INNER, CGROUP_NUMBERS, CGROUP_WORK]
                .contains(&name.as_str())
                || SCOPES.iter().any(|s| s.map == name)
                || map.map_type() == MapType::ProgArray;
            if wanted {
                map.pin(pins.map_path(&name)).trying(format!("cannot pin the host's map {name}"))?;
            }
        }
        for mut program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if queues::PROGRAMS.contains(&name.as_str()) || SCOPES.iter().any(|s| s.sweep == name) {
                program
                    .pin(pins.program_path(&name))
                    .trying(format!("cannot pin the host's program {name}"))?;
            }
        }
        Registry::new().save(&pins.map(REGISTRY_MAP)?)?;
        let host = Host::pinned(pins)?;
        host.data.set_abi(abi::ABI);
        Ok(host)
    }

    /// The maps that a policy shares with the host.
    pub(crate) fn shared(&self) -> Vec<(&'static str, &MapHandle)> {
        let records = self.records.iter().map(|(name, map)| (*name, map));
        records.chain([(HOST_MAP, &self.host_map), (CGROUP_NUMBERS, &self.cgroup_numbers)]).collect()
    }

    /// The map of a scope's records, for readers.
    pub fn records(&self, scope: Scope) -> Option<&MapHandle> {
        let name = SCOPES.iter().find(|s| s.scope == scope)?.map;
        self.records.iter().find(|(n, _)| *n == name).map(|(_, map)| map)
    }

    /// Write the books.
    pub(crate) fn save(&self) -> Result<()> {
        self.registry.save(&self.registry_map)
    }

    /// Fill an idle slot with a policy's programs, and empty it for the ops that the policy lacks.
    pub(crate) fn fill(&self, slot: u8, loaded: &Loaded) -> Result<()> {
        debug_assert_ne!(self.data.active().slot, slot, "the live slot is never filled");
        for (op, array) in &self.arrays {
            let program = loaded.program(op);
            bpf::set_slot(array, slot, program.as_ref().map(|p| p as &dyn bpf::AsFdDyn))?;
        }
        self.data.set_lacks(slot, loaded.lacks);
        Ok(())
    }

    /// Empty a slot: its programs are freed once no op is in them.
    pub(crate) fn empty(&self, slot: u8) -> Result<()> {
        self.arrays.iter().try_for_each(|(_, array)| bpf::set_slot(array, slot, None))
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

    /// Bring every record of a scope up to date.
    pub(crate) fn sweep(&self, scope: &ScopeParts) -> Result<Swept> {
        let mut args = SweepArgs::default();
        let ret = bpf::run(&self.program(scope.sweep)?, scope.sweep, &mut args)?;
        if ret < 0 {
            return Err(std::io::Error::from_raw_os_error(-ret))
                .trying(format!("cannot sweep: {}", scope.sweep));
        }
        let SweepArgs { visited, applied, missing } = args;
        Ok(Swept { scope: scope.scope.to_string(), visited, applied, missing })
    }

    fn program(&self, name: &str) -> Result<OwnedFd> {
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

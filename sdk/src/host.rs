//! The host that is running: found through its pins, driven through its maps and SYSCALL programs.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use state_migrate::Scope;

use crate::abi;
use crate::abi::QueueArgs;
use crate::abi::SweepArgs;
use crate::bpf;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host_data::Mapped;
use crate::kernel;
use crate::load::Loaded;
use crate::pins::Pins;
use crate::reattach;
use crate::registry::QueueInfo;
use crate::registry::Registry;
use crate::report::Swept;
use crate::scopes::SCOPES;
use crate::scopes::ScopeParts;

/// Name that the kernel knows the host by.
pub const NAME: &str = "scx_upgrade";
/// Map of the shared memory.
pub(crate) const HOST_MAP: &str = ".data.scx_host";
pub(crate) const REGISTRY_MAP: &str = "scx_registry";
const SETTLE_MAP: &str = "scx_settle";
const SETTLE_INNER: &str = "scx_settle_inner";
const OP_PREFIX: &str = "op_";
const CREATE_QUEUE: &str = "create_queue";
const DESTROY_QUEUE: &str = "destroy_queue";
const DRAIN_QUEUE: &str = "drain_queue";
const QUEUE_PROGRAMS: [&str; 3] = [CREATE_QUEUE, DESTROY_QUEUE, DRAIN_QUEUE];

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Its pins.
    pub pins: Pins,
    /// Its shared memory.
    pub data: Mapped,
    /// Its books, as last read or written by this process.
    pub registry: Registry,
    /// Does the kernel run it? If not, what is pinned is all there is of it, and there are no queues.
    pub(crate) attached: bool,
    registry_map: MapHandle,
    host_map: MapHandle,
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
        if reattach::other_version::is_half_way(pins) {
            return Err(Error::HalfReplaced);
        }
        if !pins.link().exists() {
            return Err(match kernel::state().as_str() {
                "disabled" => Host::why_detached(pins)?,
                state => Error::OtherScheduler { ops: kernel::ops(), state: state.to_string() },
            });
        }
        let mut host = Host::pinned(pins)?;
        let state = kernel::state();
        if state != "enabled" || !kernel::ops().starts_with(NAME) {
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
        let registry = match Host::pinned(pins) {
            Ok(host) => host.registry,
            // A start that was killed before its books were whole.
            Err(Error::Registry { .. } | Error::Bpf { .. }) => return Ok(Error::NothingRunning),
            Err(other) => return Err(other),
        };
        let why = match registry.pending {
            Some(_) => "a reattach was cut off",
            None => "and the last one was taken off by an error",
        };
        Ok(if registry.has_run() { Error::Detached { why: why.to_string() } } else { Error::NothingRunning })
    }

    /// What is pinned, as if the kernel did not run it.
    ///
    /// # Errors
    /// [`Error::OtherHost`], or the pins or books cannot be read.
    pub(crate) fn pinned(pins: &Pins) -> Result<Host> {
        let host_map = pins.map(HOST_MAP)?;
        let theirs = Mapped::abi_of(&host_map)?;
        if theirs != 0 && theirs != abi::ABI {
            return Err(Error::OtherHost { ours: abi::ABI, theirs });
        }
        let registry_map = pins.map(REGISTRY_MAP)?;
        Ok(Host {
            data: Mapped::new(&host_map)?,
            registry: Registry::load(&registry_map)?,
            registry_map,
            host_map,
            records: SCOPES.iter().map(|s| Ok((s.map, pins.map(s.map)?))).collect::<Result<_>>()?,
            arrays: arrays(pins)?,
            attached: false,
            pins: pins.clone(),
        })
    }

    /// Pin everything that must outlive this process, out of the host's freshly loaded object.
    pub(crate) fn pin(pins: &Pins, object: &mut Object) -> Result<Host> {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let wanted = [HOST_MAP, REGISTRY_MAP, SETTLE_MAP, SETTLE_INNER].contains(&name.as_str())
                || SCOPES.iter().any(|s| s.map == name)
                || map.map_type() == MapType::ProgArray;
            if wanted {
                map.pin(pins.map_path(&name)).trying(format!("cannot pin the host's map {name}"))?;
            }
        }
        for mut program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if QUEUE_PROGRAMS.contains(&name.as_str()) || SCOPES.iter().any(|s| s.sweep == name) {
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
        records.chain([(HOST_MAP, &self.host_map)]).collect()
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

    /// Create DSQs.
    pub(crate) fn create_queues(&self, ids: &[u64]) -> Result<()> {
        debug_assert!(self.attached || ids.is_empty(), "queues are the attached scheduler's");
        let program = self.program(CREATE_QUEUE)?;
        for id in ids {
            let ret = bpf::run(&program, CREATE_QUEUE, &mut QueueArgs { id: *id, ..Default::default() })?;
            // What a killed swap created stands already.
            if ret < 0 && ret != -libc::EEXIST {
                let what = format!("the kernel does not create the queue {id:#x}");
                return Err(std::io::Error::from_raw_os_error(-ret)).trying(what);
            }
        }
        Ok(())
    }

    /// Hand the tasks on a DSQ over to the policy that runs, until none is left; how many there were.
    ///
    /// # Errors
    /// [`Error::Stranded`] when some remain after many tries.
    pub(crate) fn drain_queue(&self, queue: &QueueInfo) -> Result<u64> {
        let program = self.program(DRAIN_QUEUE)?;
        let mut handed = 0;
        let mut args = QueueArgs::default();
        // Where the kernel re-enqueues it does so a moment later, from an interrupt: look again.
        for _ in 0..200 {
            args = QueueArgs { id: queue.id, ..Default::default() };
            bpf::run(&program, DRAIN_QUEUE, &mut args)?;
            if args.queued <= 0 {
                return Ok(handed + args.moved);
            }
            handed += args.moved.max(args.queued as u64);
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Error::Stranded { queue: queue.name.clone(), queued: args.queued })
    }

    /// Destroy a DSQ that no policy names any more.
    pub(crate) fn destroy_queue(&self, queue: &QueueInfo) -> Result<()> {
        let program = self.program(DESTROY_QUEUE)?;
        let mut args = QueueArgs { id: queue.id, ..Default::default() };
        if bpf::run(&program, DESTROY_QUEUE, &mut args)? < 0 {
            return Err(Error::Stranded { queue: queue.name.clone(), queued: args.queued });
        }
        Ok(())
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

//! The host that is resident in the kernel that runs, found through its pins.

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi;
use crate::host::abi::Active;
use crate::host::abi::QueueArgs;
use crate::host::compiled_sweep::Compiled;
use crate::host::environment;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::*;
use crate::host::object::ENQUEUE_DEFAULT;
use crate::host::pins::Pins;
use crate::host::registry::Registry;
use crate::host::requeue;
use crate::host::resident::Resident;
use crate::host::scopes;
use crate::host::scopes::SCOPES;
use crate::host::scopes::SWEEP_UNTRACKED;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::PinnedTarget;
use crate::host::sweep::SweepTarget;
use crate::host::sweep::Sweeper;
use crate::host::sweep::Swept;
use crate::host::worker_pool;
use crate::host::worker_pool::WorkerPool;
use crate::kernel::bpf;
use crate::kernel::sysfs;
use crate::kernel::topology::Topology;
use crate::os::priority;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use state_migrate::Plan;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

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
/// Map of what state each number is in.
const NUMBERS: &str = ".data.scxu_numbers";

/// The host's maps, opened.
#[derive(Debug)]
pub struct Maps {
    pub(super) registry: MapHandle,
    pub(super) memory: MapHandle,
    cgroup_numbers: MapHandle,
    task_table: MapHandle,
    pub(super) records: Vec<(&'static str, MapHandle)>,
    pub(super) arrays: Vec<(String, MapHandle)>,
}

impl Maps {
    /// The maps that a policy shares with the host.
    pub(crate) fn shared(&self) -> Vec<(&'static str, &MapHandle)> {
        let maps = self;
        let records = maps.records.iter().map(|(name, map)| (*name, map));
        let others = [
            (HOST_MAP, &maps.memory),
            (CGROUP_NUMBERS, &maps.cgroup_numbers),
            (TASK_TABLE, &maps.task_table),
        ];
        records.chain(others).collect()
    }
}

impl Pins {
    /// Pins everything that must outlive this process, out of the host's freshly loaded object.
    pub(crate) fn pin_host(&self, object: &mut Object) -> Result<()> {
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
                map.pin(self.map_path(&name)).trying(format!("cannot pin the host's map {name}"))?;
            }
        }
        for mut program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if QUEUE_PROGRAMS.contains(&name.as_str())
                || name == requeue::PROGRAM
                || name == ENQUEUE_DEFAULT
                || name == TRACK_UNTRACKED
                || name == START_HANDOVER
                || scopes::sweeps(&name)
            {
                program
                    .pin(self.program_path(&name))
                    .trying(format!("cannot pin the host's program {name}"))?;
            }
        }
        Ok(())
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

    fn compile(&self, maps: &Maps, plan: &Plan) -> Option<Compiled> {
        if sysfs::tasks() < worker_pool::MANY {
            return None;
        }
        priority::lowered(|| Compiled::load(plan, &maps.shared())).unwrap_or_else(|e| {
            log::warn!("the sweep takes longer: {e}");
            None
        })
    }

    fn sweep_all(
        &self,
        host: SweepTarget<'_>,
        scopes: &[&ScopeParts],
        compiled: Option<&Compiled>,
        slot: Option<u8>,
        workers: &WorkerPool,
    ) -> Vec<Result<Swept>> {
        let SweepTarget { data, attached } = host;
        let target = PinnedTarget { pins: self, data, attached };
        target.sweep_scopes(scopes, Sweeper { compiled, slot }, workers)
    }

    fn walk_tasks(&self, host: SweepTarget<'_>) {
        let SweepTarget { data, attached } = host;
        PinnedTarget { pins: self, data, attached }.sweep_nothing();
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

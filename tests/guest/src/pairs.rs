//! Whether tasks of two cgroups ever run on the CPUs of one core at the same time: every switch is looked at, by a BPF
//! program of its own (`src/bpf/pairs.bpf.c`).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use libbpf_rs::{Link, MapCore as _, MapFlags, Object, ObjectBuilder};
use plain::Plain;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pairs.bpf.o"));
/// The scx headers put this program into every object; it wants to be attached, and nothing here needs it.
const SCX_PROBE: &str = "scx_lib_init_probe";
/// `PAIRS_MAX_CPUS`
const MAX_CPUS: usize = 64;

/// What was seen since the watch began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Switches to a task that is in a group: no kernel thread, not real-time.
    pub switches: u64,
    /// A sibling was running one of the same group then.
    pub same: u64,
    /// A sibling was running one of another group.
    pub other: u64,
    /// The last such pair: the task that came,
    pub came: u32,
    /// the one that was there,
    pub beside: u32,
    /// and their cgroups' ids.
    pub came_group: u64,
    /// See above.
    pub beside_group: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Seen {}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Pairs {
    object: Object,
    _link: Link,
}

/// The CPUs of each core that has more than one, as sysfs lists them.
///
/// # Errors
/// sysfs cannot be read.
pub fn cores() -> Result<Vec<Vec<usize>>> {
    let mut cores = BTreeMap::<String, Vec<usize>>::new();
    for cpu in 0..MAX_CPUS {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        if let Ok(list) = fs::read_to_string(path) {
            cores.entry(list).or_default().push(cpu);
        }
    }
    ensure!(!cores.is_empty(), "sysfs lists no CPU");
    Ok(cores.into_values().filter(|cpus| cpus.len() > 1).collect())
}

impl Pairs {
    /// Begin.
    ///
    /// # Errors
    /// No core has two CPUs; or the programs do not load.
    pub fn watch() -> Result<Pairs> {
        let cores = cores()?;
        ensure!(!cores.is_empty(), "no core of this machine has two CPUs: boot it with SMT");
        let mut open =
            ObjectBuilder::default().name("pairs")?.open_memory(OBJECT).context("the BPF object")?;
        for mut program in open.progs_mut().filter(|program| program.name() == SCX_PROBE) {
            program.set_autoload(false);
        }
        let object = open.load().context("loading the programs")?;
        for cpus in &cores {
            let mask = cpus.iter().fold(0u64, |mask, cpu| mask | 1 << cpu);
            for cpu in cpus {
                let map = object.maps().find(|map| map.name() == "pairs_cores").context("no map of cores")?;
                map.update(&(*cpu as u32).to_ne_bytes(), &mask.to_ne_bytes(), MapFlags::ANY)?;
            }
        }
        let program = object.progs_mut().find(|program| program.name() == "pairs_switch");
        let link = program.context("no program")?.attach().context("attaching to sched_switch")?;
        Ok(Pairs { object, _link: link })
    }

    /// What was seen until now.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn seen(&self) -> Result<Seen> {
        let map = self.object.maps().find(|map| map.name() == "pairs_seen").context("no map of pairs")?;
        let bytes = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("an empty map")?;
        plain::from_bytes::<Seen>(&bytes).copied().map_err(|e| anyhow::anyhow!("{e:?}"))
    }
}

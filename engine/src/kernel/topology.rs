//! Which last-level cache each CPU is at, and which CPUs are one core, from sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi;

const SYSFS: &str = "/sys/devices/system/cpu";

/// The CPUs that there can be, and their LLCs, counted from 0 without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// By CPU: the LLC it is at. What the kernel says nothing of, such as a CPU that is offline, is put at the first.
    pub llc_of_cpu: Vec<u16>,
    /// How many LLCs there are, at least 1.
    pub nr_llcs: u32,
    /// By CPU: the first CPU of its core. One that the kernel says nothing of is a core by itself.
    pub core_of_cpu: Vec<u16>,
    /// By CPU: the next CPU of its core, of the last the first. Itself, where the core has no other.
    pub next_sibling: Vec<u16>,
}

impl Topology {
    /// That of this machine.
    ///
    /// # Errors
    /// It cannot be read, or there are more than [`abi::MAX_CPUS`] CPUs.
    pub fn read() -> Result<Topology> {
        let cpus = libbpf_rs::num_possible_cpus().trying("cannot count the CPUs")?;
        if cpus > abi::MAX_CPUS {
            return Err(Error::TooManyCpus { cpus, max: abi::MAX_CPUS });
        }
        let folders: Vec<_> = (0..cpus).map(|cpu| Path::new(SYSFS).join(format!("cpu{cpu}"))).collect();
        let llcs: Vec<_> = folders.iter().map(|cpu| llc_key(cpu)).collect();
        let cores: Vec<_> = folders.iter().map(|cpu| core_key(cpu)).collect();
        Ok(Topology::new(&llcs, &cores))
    }

    /// From something for each CPU that those at one LLC have in common, and those of one core.
    fn new(llcs: &[Option<String>], cores: &[Option<String>]) -> Topology {
        let mut numbers = BTreeMap::new();
        let mut llc_of_cpu = Vec::with_capacity(llcs.len());
        for key in llcs {
            let next = numbers.len() as u16;
            llc_of_cpu.push(key.as_ref().map_or(0, |key| *numbers.entry(key).or_insert(next)));
        }
        let alone: Vec<u16> = (0..cores.len()).map(|cpu| cpu as u16).collect();
        let (mut core_of_cpu, mut next_sibling) = (alone.clone(), alone);
        let mut members = BTreeMap::<_, Vec<u16>>::new();
        for (cpu, key) in cores.iter().enumerate() {
            if let Some(key) = key {
                members.entry(key).or_default().push(cpu as u16);
            }
        }
        for cpus in members.values() {
            for (cpu, next) in cpus.iter().zip(cpus.iter().cycle().skip(1)) {
                core_of_cpu[usize::from(*cpu)] = cpus[0];
                next_sibling[usize::from(*cpu)] = *next;
            }
        }
        Topology { llc_of_cpu, nr_llcs: numbers.len().max(1) as u32, core_of_cpu, next_sibling }
    }

    /// CPUs that there can be.
    pub fn nr_cpus(&self) -> u32 {
        self.llc_of_cpu.len() as u32
    }
}

/// The CPUs that share the largest cache of this one, as the kernel lists them; where it knows of no cache, those of its
/// package.
fn llc_key(cpu: &Path) -> Option<String> {
    let text = |path: &Path| fs::read_to_string(path).ok().map(|text| text.trim().to_string());
    let caches = fs::read_dir(cpu.join("cache")).ok().into_iter().flatten().filter_map(|cache| {
        let cache = cache.ok()?.path();
        let level: u32 = text(&cache.join("level"))?.parse().ok()?;
        Some((level, text(&cache.join("shared_cpu_list"))?))
    });
    let largest = caches.max().map(|(_, cpus)| cpus);
    largest.or_else(|| text(&cpu.join("topology/package_cpus_list"))).filter(|cpus| !cpus.is_empty())
}

/// The CPUs of this one's core, as the kernel lists them.
fn core_key(cpu: &Path) -> Option<String> {
    let text = fs::read_to_string(cpu.join("topology/thread_siblings_list")).ok()?;
    Some(text.trim().to_string()).filter(|cpus| !cpus.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<Option<String>> {
        keys.iter().map(|k| (!k.is_empty()).then(|| (*k).to_string())).collect()
    }

    fn topology(llcs: &[&str]) -> (Vec<u16>, u32) {
        let topology = Topology::new(&keys(llcs), &[]);
        (topology.llc_of_cpu, topology.nr_llcs)
    }

    #[test]
    fn siblings_are_a_ring_that_begins_at_the_first() {
        let of = |cores: &[&str]| {
            let topology = Topology::new(&[], &keys(cores));
            (topology.core_of_cpu, topology.next_sibling)
        };
        assert_eq!(of(&["0,2", "1,3", "0,2", "1,3"]), (vec![0, 1, 0, 1], vec![2, 3, 0, 1]));
        assert_eq!(of(&["0-2", "0-2", "0-2"]), (vec![0, 0, 0], vec![1, 2, 0]));
        // Offline, or no SMT: a core by itself.
        assert_eq!(of(&["0", "", ""]), (vec![0, 1, 2], vec![0, 1, 2]));
    }

    #[test]
    fn llcs_are_counted_without_gaps_in_the_order_of_their_cpus() {
        assert_eq!(topology(&["4-7", "0-3", "0-3", "4-7"]), (vec![0, 1, 1, 0], 2));
        assert_eq!(topology(&["0", "1", "2"]), (vec![0, 1, 2], 3));
    }

    #[test]
    fn what_nothing_is_known_of_is_at_the_first() {
        assert_eq!(topology(&["0-1", "0-1", "", "3"]), (vec![0, 0, 0, 1], 2));
        assert_eq!(topology(&["", ""]), (vec![0, 0], 1));
        assert_eq!(topology(&[]), (vec![], 1));
    }

    #[test]
    fn the_largest_cache_counts() {
        let dir = std::env::temp_dir().join(format!("scx-upgrade-topology-{}", std::process::id()));
        for (index, level, cpus) in [("index0", "1", "0"), ("index3", "3", "0-3"), ("index2", "2", "0-1")] {
            let cache = dir.join("cache").join(index);
            fs::create_dir_all(&cache).unwrap();
            fs::write(cache.join("level"), format!("{level}\n")).unwrap();
            fs::write(cache.join("shared_cpu_list"), format!("{cpus}\n")).unwrap();
        }
        let found = llc_key(&dir);
        fs::remove_dir_all(dir.join("cache")).unwrap();
        fs::create_dir_all(dir.join("topology")).unwrap();
        fs::write(dir.join("topology/package_cpus_list"), "0-7\n").unwrap();
        let package = llc_key(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((found.as_deref(), package.as_deref()), (Some("0-3"), Some("0-7")));
        assert_eq!(llc_key(&dir), None);
    }
}

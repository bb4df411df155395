//! Which last-level cache each CPU is at, from sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::abi;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;

const SYSFS: &str = "/sys/devices/system/cpu";

/// The CPUs that there can be, and their LLCs, counted from 0 without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// By CPU: the LLC it is at. What the kernel says nothing of, such as a CPU that is offline, is put at the first.
    pub llc_of_cpu: Vec<u16>,
    /// How many LLCs there are, at least 1.
    pub nr_llcs: u32,
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
        let keys: Vec<_> =
            (0..cpus).map(|cpu| llc_key(&Path::new(SYSFS).join(format!("cpu{cpu}")))).collect();
        Ok(Topology::new(&keys))
    }

    /// From something for each CPU that those at one LLC have in common.
    fn new(keys: &[Option<String>]) -> Topology {
        let mut numbers = BTreeMap::new();
        let mut llc_of_cpu = Vec::with_capacity(keys.len());
        for key in keys {
            let next = numbers.len() as u16;
            llc_of_cpu.push(key.as_ref().map_or(0, |key| *numbers.entry(key).or_insert(next)));
        }
        Topology { llc_of_cpu, nr_llcs: numbers.len().max(1) as u32 }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(keys: &[&str]) -> (Vec<u16>, u32) {
        let keys: Vec<_> = keys.iter().map(|k| (!k.is_empty()).then(|| (*k).to_string())).collect();
        let topology = Topology::new(&keys);
        (topology.llc_of_cpu, topology.nr_llcs)
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

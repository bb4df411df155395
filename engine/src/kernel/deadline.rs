//! Deadline bandwidth: whether the kernel has room for the reservation that it makes when a scheduler is attached.
//!
//! Since Linux v7.3 `scx_root_enable_workfn()` attaches a deadline server for sched_ext on each CPU, beside the fair class's,
//! and gives up with `EBUSY` where a root domain has no room for it (`dl_server_attach_bw()`, `__dl_overflow()`). By then the
//! scheduler that ran before is detached. So the same sum is done here first, with the kernel's own figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::kernel::machine::Cpu;
use crate::kernel::machine::cpu_list;

/// A whole CPU, in the unit of the kernel's bandwidths: `BW_UNIT`.
const WHOLE: u64 = 1 << 20;
/// `SCHED_CAPACITY_SCALE`: the capacity of the largest CPU.
const FULL_CAPACITY: u64 = 1024;
/// No limit: `sched_rt_runtime_us` is -1.
const NO_LIMIT: u64 = u64::MAX;

/// What a root domain would hold with a scheduler attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Its CPUs, as the kernel writes a list of them.
    pub cpus: String,
    /// What is reserved without the server of sched_ext, in `1 / 2^20` of a CPU.
    pub reserved: u64,
    /// What the server of sched_ext would reserve.
    pub server: u64,
    /// What may be reserved; `None`: without limit.
    pub room: Option<u64>,
    /// How many CPUs that is of.
    pub nr_cpus: u64,
}

impl Demand {
    /// Would the kernel refuse to attach a scheduler?
    pub fn is_too_much(&self) -> bool {
        self.room.is_some_and(|room| room < self.reserved + self.server)
    }

    /// A bandwidth of this domain as percent of each of its CPUs.
    fn percent(&self, bandwidth: u64) -> String {
        format!("{:.1} %", bandwidth as f64 * 100.0 / (WHOLE * self.nr_cpus.max(1)) as f64)
    }
}

impl std::fmt::Display for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (reserved, server) = (self.percent(self.reserved), self.percent(self.server));
        write!(
            f,
            "on CPUs {}, {reserved} of each CPU is reserved and the server of sched_ext takes ",
            self.cpus
        )?;
        match self.room {
            Some(room) => write!(f, "{server} more, of {} that deadline may reserve", self.percent(room)),
            None => write!(f, "{server} more, without a limit"),
        }
    }
}

/// What each root domain would hold. Empty on kernels that reserve nothing when a scheduler is attached. `capacity` is by CPU.
///
/// A scheduler that runs is detached first. Then the kernel gives its server's bandwidth back and attaches the fair server's
/// again, so this holds whether one runs or not.
pub fn demands(cpus: &[Cpu], capacity: impl Fn(u32) -> u64) -> Vec<Demand> {
    let mut domains = BTreeMap::<u64, Vec<&Cpu>>::new();
    for cpu in cpus.iter().filter(|cpu| cpu.reserves) {
        domains.entry(cpu.domain).or_default().push(cpu);
    }
    let demand = |cpus: &Vec<&Cpu>| {
        let sum = |of: &dyn Fn(&Cpu) -> u64| cpus.iter().map(|cpu| of(cpu)).sum::<u64>();
        let total = cpus.iter().map(|cpu| cpu.total).max().unwrap_or(0);
        let given_back = sum(&|cpu| if cpu.ext_attached { cpu.ext } else { 0 });
        let fair_again = sum(&|cpu| if cpu.fair_attached { 0 } else { cpu.fair });
        let limit = cpus.first().map_or(NO_LIMIT, |cpu| cpu.limit);
        // As cap_scale(): rounded down, once for the domain.
        let room = (limit != NO_LIMIT).then(|| limit * sum(&|cpu| capacity(cpu.cpu)) / FULL_CAPACITY);
        Demand {
            cpus: cpu_list(cpus.iter().map(|cpu| cpu.cpu)),
            reserved: total.saturating_sub(given_back) + fair_again,
            server: sum(&|cpu| cpu.ext),
            room,
            nr_cpus: cpus.len() as u64,
        }
    };
    domains.values().map(demand).collect()
}

/// The capacity of a CPU where the machine has CPUs of different ones.
pub(crate) fn capacity(root: &Path, cpu: u32) -> u64 {
    let file = root.join(format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"));
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FULL_CAPACITY)
}

/// Has the kernel room for a scheduler?
///
/// # Errors
/// [`Error::DeadlineBandwidth`]
pub fn check(cpus: &[Cpu], capacity: impl Fn(u32) -> u64) -> Result<Vec<Demand>> {
    let demands = demands(cpus, capacity);
    match demands.iter().find(|demand| demand.is_too_much()) {
        Some(demand) => Err(Error::DeadlineBandwidth { demand: demand.to_string() }),
        None => Ok(demands),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 %, as `to_ratio()` gives it for 50 ms of 1 s.
    const SERVER: u64 = 52_428;

    /// So many CPUs of one domain, whose real-time limit is this. `attached`: a scheduler runs.
    fn cpus(count: u32, rt_runtime_us: u64, deadline_tasks: u64, attached: bool) -> Vec<Cpu> {
        let total = u64::from(count) * SERVER + deadline_tasks;
        (0..count)
            .map(|cpu| Cpu {
                cpu,
                reserves: true,
                fair_attached: !attached,
                ext_attached: attached,
                core_scheduling: false,
                domain: 7,
                limit: (rt_runtime_us << 20) / 1_000_000,
                total,
                fair: SERVER,
                ext: SERVER,
            })
            .collect()
    }

    fn fits(cpus: &[Cpu]) -> bool {
        check(cpus, |_| FULL_CAPACITY).is_ok()
    }

    #[test]
    fn the_limit_that_a_machine_has_by_default_leaves_room() {
        for attached in [false, true] {
            assert!(fits(&cpus(1, 950_000, 0, attached)));
            assert!(fits(&cpus(64, 950_000, 0, attached)));
        }
    }

    #[test]
    fn a_limit_below_both_servers_is_refused_whether_a_scheduler_runs_or_not() {
        for attached in [false, true] {
            assert!(!fits(&cpus(2, 80_000, 0, attached)));
            assert!(fits(&cpus(2, 100_000, 0, attached)), "to_ratio() rounds the servers down");
            assert!(!fits(&cpus(2, 99_000, 0, attached)));
        }
        let error = check(&cpus(2, 80_000, 0, true), |_| FULL_CAPACITY).unwrap_err().to_string();
        for words in ["CPUs 0-1", "5.0 %", "8.0 %", "sched_rt_runtime_us", "EBUSY"] {
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }

    #[test]
    fn deadline_tasks_count_and_only_in_their_domain() {
        let full = 2 * (WHOLE * 95 / 100 - 2 * SERVER);
        assert!(fits(&cpus(2, 950_000, full - 100, false)));
        assert!(!fits(&cpus(2, 950_000, full + 100, false)));
        let mut two = cpus(2, 950_000, full - 100, false);
        let other =
            cpus(2, 950_000, 0, false).into_iter().map(|cpu| Cpu { cpu: cpu.cpu + 2, domain: 8, ..cpu });
        two.extend(other);
        let demands = check(&two, |_| FULL_CAPACITY).unwrap();
        assert_eq!(demands.iter().map(|d| d.cpus.as_str()).collect::<Vec<_>>(), ["0-1", "2-3"]);
        assert!(demands[0].reserved > demands[1].reserved);
    }

    #[test]
    fn no_limit_and_kernels_that_reserve_nothing_never_refuse() {
        let mut unlimited = cpus(2, 950_000, 40 * WHOLE, false);
        unlimited.iter_mut().for_each(|cpu| cpu.limit = NO_LIMIT);
        assert!(fits(&unlimited));
        let mut old = cpus(2, 1, 0, false);
        old.iter_mut().for_each(|cpu| cpu.reserves = false);
        assert_eq!(check(&old, |_| FULL_CAPACITY).unwrap(), []);
    }

    #[test]
    fn small_cpus_have_less_room() {
        // 12 % of two full CPUs are enough for both servers; of one full and one half CPU they are not.
        let cpus = cpus(2, 120_000, 0, false);
        assert!(check(&cpus, |_| FULL_CAPACITY).is_ok());
        assert!(check(&cpus, |cpu| FULL_CAPACITY >> cpu).is_err());
    }

    #[test]
    fn a_partial_scheduler_keeps_both_servers() {
        // What SCX_OPS_SWITCH_PARTIAL leaves: both are in the sum, and an attach again needs no more.
        let mut partial = cpus(2, 110_000, 2 * SERVER, true);
        partial.iter_mut().for_each(|cpu| cpu.fair_attached = true);
        let demand = &demands(&partial, |_| FULL_CAPACITY)[0];
        assert_eq!((demand.reserved, demand.server), (2 * SERVER, 2 * SERVER));
        assert!(fits(&partial));
    }
}

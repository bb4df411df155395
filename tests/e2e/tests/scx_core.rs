//! scx_core: no two trust groups ever run on the CPUs of a core at the same time, and all advance. Needs a machine with
//! SMT; `cargo xtask test` boots one for this suite.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::rounds;
use e2e::wait_until;
use guest::pairs::Pairs;
use guest::pairs::Seen;
use guest::pairs::cores;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use state_migrate::Scope;

const CORE: &str = "/bin/scx_core";
const OTHER: &str = "/bin/scx_mini";
/// For how long to watch: `SCX_UPGRADE_SECONDS`, or this.
const MEASURE: u64 = 4;
/// Switches to look at, at least; fewer on older kernels.
const SWITCHES: u32 = 1000;

/// In how many windows shares are measured, and how long all of them are together where `SCX_UPGRADE_SECONDS` says nothing.
const SHARE_WINDOWS: u32 = 5;
const SHARE_SECONDS: u64 = 10;
/// How far the time of a group may be from its half of the core, as a part of the core's time: 5 % of the half.
const UNEVEN: f64 = 0.025;

/// `SCX_UPGRADE_SECONDS`, or this.
fn seconds(usual: u64) -> Duration {
    let told = std::env::var("SCX_UPGRADE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(told.unwrap_or(usual))
}

/// Watch for a while, until enough has been seen.
fn watch() -> Seen {
    let pairs = Pairs::watch().unwrap();
    std::thread::sleep(seconds(MEASURE));
    wait_until("there were enough switches", || {
        pairs.seen().unwrap().switches >= u64::from(rounds(SWITCHES))
    });
    pairs.seen().unwrap()
}

/// How long CPUs have been forced to idle, ns.
fn forced_idle() -> u64 {
    let host = Host::running(&Pins::open().unwrap()).unwrap();
    let columns = &host.registry.layout.scopes[&Scope::Cpu].columns;
    let column = columns.iter().find(|c| c.name == "core_forced_ns").unwrap();
    let records = host.records(Scope::Cpu).unwrap();
    let of = |cpu: u32| {
        let record = records.lookup(&cpu.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        u64::from_ne_bytes(record[column.offset as usize..][..8].try_into().unwrap())
    };
    (0..host.data.nr_cpus()).map(of).sum()
}

/// Each group's tasks have had a turn.
fn all_advance(groups: &[&Cgroup]) {
    let before: Vec<_> = groups.iter().map(|g| g.usage_us()).collect();
    wait_until("every group advances", || groups.iter().zip(&before).all(|(g, b)| g.usage_us() > b + 1000));
}

#[test]
fn scx_core_never_lets_two_groups_share_a_core() {
    fresh();
    Cgroup::root().share_cpu();
    let [odd, alone, inner] = ["core_odd", "core_alone", "core_odd/inner"].map(|name| {
        let group = Cgroup::new(name);
        if name == "core_odd" {
            group.share_cpu();
        }
        group
    });
    // Three that trust each other, one of them further below; one that is by itself, so that a CPU has to idle.
    let sibling = Cgroup::new("core_odd/sibling");
    let busy = [Busy::start(&inner), Busy::start(&inner), Busy::start(&sibling), Busy::start(&alone)];
    // And such as sleep, wake, talk and fork.
    let load = load(24);
    let talking = Cgroup::new("core_talking");
    load.pids().for_each(|pid| talking.take(pid as i32));
    let groups = [&odd, &alone, &talking];

    // What the watch sees where nobody cares.
    report(&["run", OTHER]);
    all_advance(&groups);
    let seen = watch();
    println!("under {OTHER}: {seen:?}");
    assert!(seen.other > 0 && seen.same > 0, "{seen:?}");

    let enabled = EnabledWatch::start();
    report(&["swap", CORE]);
    // Every task has passed the new policy's queues.
    all_advance(&groups);
    let (before, idle) = (groups.map(|g| g.usage_us()), forced_idle());
    let seen = watch();
    let after = groups.map(|g| g.usage_us());
    let used: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    let idle = (forced_idle() - idle) / 1000;
    println!("under {CORE}: {seen:?}; used {used:?} us, forced idle {idle} us");
    assert_eq!(seen.other, 0, "two groups shared a core: {seen:?}");
    assert!(seen.same > 0, "those of one group may: {seen:?}");
    assert!(idle > 0, "a CPU beside the lone task idles");
    assert!(used[1] * 20 > used.iter().sum::<u64>(), "the lone task starves: {used:?}");

    // Whatever it left behind, the next one runs them all.
    report(&["swap", OTHER]);
    all_advance(&groups);
    enabled.finish();
    drop(busy);
    load.stop().unwrap();
    fresh();
}

/// Lets the processes of a cgroup run on these CPUs only.
fn hold(group: &Cgroup, cpus: &[usize]) {
    let pids = std::fs::read_to_string(group.path().join("cgroup.procs")).unwrap();
    assert!(!pids.is_empty(), "no process in {:?}", group.path());
    for pid in pids.lines() {
        // SAFETY: an all-zero set is an empty one, and the call gets its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
            let size = size_of::<libc::cpu_set_t>();
            assert_eq!(libc::sched_setaffinity(pid.parse().unwrap(), size, &set), 0);
        }
    }
}

/// One task that computes in each of two trust groups, the first held to some CPUs of a core and the second to others of it.
fn share_evenly(name: &str, first: &[usize], second: &[usize]) {
    let groups = ["core_first", "core_second"].map(Cgroup::new);
    let busy = groups.each_ref().map(Busy::start);
    hold(&groups[0], first);
    hold(&groups[1], second);
    all_advance(&[&groups[0], &groups[1]]);
    let pairs = Pairs::watch().unwrap();
    let usage = || groups.each_ref().map(Cgroup::usage_us);
    let mut uneven: Vec<f64> = (0..SHARE_WINDOWS)
        .map(|_| {
            let before = usage();
            std::thread::sleep(seconds(SHARE_SECONDS) / SHARE_WINDOWS);
            let after = usage();
            let [one, other] = [0, 1].map(|i| (after[i] - before[i]) as f64);
            println!("{name}: {:.0} and {:.0} ms", one / 1000.0, other / 1000.0);
            (one / (one + other) - 0.5).abs()
        })
        .collect();
    let seen = pairs.seen().unwrap();
    println!("{name}: {seen:?}");
    assert_eq!(seen.other, 0, "two groups shared a core: {seen:?}");
    // An emulated CPU may stand still for the length of many turns, which shows in the window in which it does. The median of a
    // fixed number of windows is what the policy does.
    uneven.sort_by(f64::total_cmp);
    let median = uneven[uneven.len() / 2];
    assert!(
        median < UNEVEN,
        "{name}: in each window a group is off its half of the core by {uneven:.4?} of it"
    );
    drop(busy);
}

/// The groups share the core, whichever of its CPUs their tasks may run on.
#[test]
fn scx_core_shares_a_core_evenly_between_two_groups() {
    fresh();
    Cgroup::root().share_cpu();
    let core = cores().unwrap().swap_remove(0);
    report(&["run", CORE]);
    let enabled = EnabledWatch::start();
    share_evenly("both on either CPU", &core, &core);
    share_evenly("each on a CPU of its own", &core[..1], &core[1..2]);
    share_evenly("one on either CPU", &core, &core[1..2]);
    enabled.finish();
    fresh();
}

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

/// Watch for a while, until enough has been seen.
fn watch() -> Seen {
    let pairs = Pairs::watch().unwrap();
    let told = std::env::var("SCX_UPGRADE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    std::thread::sleep(Duration::from_secs(told.unwrap_or(MEASURE)));
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

//! scx_quota: cgroups get what cpu.max says, nested ones and lone tasks too; another scheduler knows no limit, and a swap
//! back goes on with the accounts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;
use std::time::Instant;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::report;
use e2e::wait_until;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use state_migrate::Scope;

const QUOTA: &str = "/bin/scx_quota";
const OTHER: &str = "/bin/scx_mini";
/// Long enough that a period more or less does not count.
const MEASURE: Duration = Duration::from_secs(6);

/// What each cgroup used of one CPU, percent, over the same time.
fn shares<const N: usize>(groups: [&Cgroup; N]) -> [f64; N] {
    let before = groups.map(Cgroup::usage_us);
    let begin = Instant::now();
    std::thread::sleep(MEASURE);
    let after = groups.map(Cgroup::usage_us);
    let passed = begin.elapsed().as_micros() as f64;
    std::array::from_fn(|n| (after[n] - before[n]) as f64 * 100.0 / passed)
}

fn is_about(share: f64, wanted: f64) -> bool {
    (share - wanted).abs() <= 3.0
}

/// A column of a cgroup's record, whatever policy runs: those of one that can be rolled back to stay.
fn account(group: &Cgroup, name: &str) -> u64 {
    let host = Host::running(&Pins::open().unwrap()).unwrap();
    let columns = &host.registry.layout.scopes[&Scope::Cgroup].columns;
    let column = columns.iter().find(|c| c.name == name).unwrap();
    let record = host.records(Scope::Cgroup).unwrap().lookup(&group.key().to_ne_bytes(), MapFlags::ANY);
    let record = record.unwrap().expect("the cgroup has no record");
    u64::from_ne_bytes(record[column.offset as usize..][..8].try_into().unwrap())
}

#[test]
fn scx_quota_gives_what_cpu_max_says() {
    fresh();
    Cgroup::root().share_cpu();
    // Set before the scheduler is there: it is told of no limit.
    let many = Cgroup::new("quota_many");
    many.set("cpu.max", "50000 100000");
    let lone = Cgroup::new("quota_lone");
    lone.set("cpu.max", "30000 100000");
    report(&["run", QUOTA]);
    let watch = EnabledWatch::start();

    // A lone task on an idle machine: nobody displaces it, and the CPU must rest.
    let task = Busy::start(&lone);
    let [share] = shares([&lone]);
    println!("a lone task with a limit of 30 %: {share:.1} %");
    assert!(is_about(share, 30.0), "{share}");

    // Several, beside it.
    let tasks: Vec<_> = (0..3).map(|_| Busy::start(&many)).collect();
    let [several, share] = shares([&many, &lone]);
    println!("three with a limit of 50 %: {several:.1} %, beside the lone one: {share:.1} %");
    assert!(is_about(several, 50.0) && is_about(share, 30.0), "{several} {share}");

    // Others without a limit, on a full machine.
    let free = Cgroup::new("quota_free");
    let others: Vec<_> = (0..3).map(|_| Busy::start(&free)).collect();
    let [several, share, rest] = shares([&many, &lone, &free]);
    println!("on a full machine: {several:.1} %, {share:.1} %; the others {rest:.1} %");
    // Of fair shares, 7 on 2 CPUs, a limit of 30 % is more than one has.
    assert!(is_about(several, 50.0) && share < 33.0, "{several} {share}");
    assert!(rest > several && rest > share, "{rest}");
    drop(others);

    // Told of a change.
    many.set("cpu.max", "20000 100000");
    lone.set("cpu.max", "max 100000");
    let [several, share] = shares([&many, &lone]);
    println!("20 % now: {several:.1} %; without a limit: {share:.1} %");
    assert!(is_about(several, 20.0) && share > 60.0, "{several} {share}");
    assert!(account(&many, "quota_throttlings") > 10);
    assert!(account(&many, "quota_throttled_ns") > 0);
    drop((task, tasks));
    watch.finish();
    fresh();
}

#[test]
fn scx_quota_holds_nested_limits_and_its_accounts_over_swaps() {
    fresh();
    Cgroup::root().share_cpu();
    let outer = Cgroup::new("quota_outer");
    outer.set("cpu.max", "50000 100000");
    outer.share_cpu();
    let inner = ["quota_outer/a", "quota_outer/b", "quota_outer/c"].map(Cgroup::new);
    inner[0].set("cpu.max", "10000 100000");
    inner[1].set("cpu.max", "45000 100000");
    report(&["run", QUOTA]);
    let watch = EnabledWatch::start();
    let tasks: Vec<_> = inner.iter().map(Busy::start).collect();
    let [all, a, b, c] = shares([&outer, &inner[0], &inner[1], &inner[2]]);
    println!("50 % in all: {all:.1} %; 10 % at most: {a:.1} %; 45 % at most: {b:.1} %; the rest: {c:.1} %");
    assert!(is_about(all, 50.0) && a < 13.0 && b < 48.0, "{all} {a} {b} {c}");

    // Another scheduler: no limit, and the accounts stay.
    report(&["swap", OTHER]);
    let throttlings = account(&outer, "quota_throttlings");
    let [all] = shares([&outer]);
    println!("under another scheduler: {all:.1} %");
    assert!(all > 100.0, "{all}");
    assert_eq!(account(&outer, "quota_throttlings"), throttlings, "nobody counts on");

    // Back, by a rollback: the limit, and the accounts go on.
    report(&["rollback"]);
    wait_until("it throttles", || account(&outer, "quota_throttlings") > throttlings);
    let [all, a, b, c] = shares([&outer, &inner[0], &inner[1], &inner[2]]);
    println!("back: {all:.1} %; {a:.1} %, {b:.1} %, {c:.1} %");
    assert!(is_about(all, 50.0) && a < 13.0 && b < 48.0, "{all} {a} {b} {c}");
    // To itself: the tasks that are parked are on the same queues.
    report(&["swap", QUOTA]);
    let [all] = shares([&outer]);
    println!("after a swap to itself: {all:.1} %");
    assert!(is_about(all, 50.0), "{all}");

    // Who is throttled can be killed.
    drop(tasks);
    watch.finish();
    fresh();
}

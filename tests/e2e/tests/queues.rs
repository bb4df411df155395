//! Queues with a span: swaps round through policies that name single queues, per-CPU, per-LLC and per-cgroup ones, all
//! under one name; nobody is lost or starved, nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use e2e::Busy;
use e2e::Cgroup;
use e2e::Churn;
use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::report;
use e2e::rounds;
use e2e::start_by_hand;
use e2e::status;
use e2e::wait_until;
use guest::load::Load;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::queues::Count;
use scx_upgrade_engine::host::registry::QueueInfo;
use state_migrate::QueueOrder;
use state_migrate::QueueSpan;
use state_migrate::Scope;

const SINGLE: &str = "/bin/queue_single";
const PER_CPU: &str = "/bin/queue_cpu";
const PER_LLC: &str = "/bin/queue_llc";
const PER_CGROUP: &str = "/bin/queue_cgroup";
const ALL: [&str; 4] = [SINGLE, PER_CPU, PER_LLC, PER_CGROUP];
const SWAPS: u32 = 24;
const KILLS: u32 = 16;
/// More than one dispatch looks through (SCX_UPGRADE_ORPHANS_A_TIME), and than stand ahead of need.
const MANY_CGROUPS: usize = 400;

fn host() -> Host {
    Host::running(&Pins::open().unwrap()).unwrap()
}

fn all_advance(load: &Load) {
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
}

/// Every queue in the registry exists with all its members, no id is given twice, and of no other queue that ever was
/// does any member stand.
fn nothing_leaks(host: &Host) {
    let data = &host.data;
    let mut families = BTreeSet::new();
    for queue in &host.registry.queues {
        assert!(families.insert(queue.id >> 32), "{} has the id of another queue", queue.name);
        assert!(!queue.slots.is_empty(), "no policy names {}, and it stands", queue.name);
        let members: u64 = match queue.span {
            QueueSpan::One => 1,
            QueueSpan::Cpu => data.nr_cpus().into(),
            QueueSpan::Llc => data.nr_llcs().into(),
            QueueSpan::Cgroup => data.cgroup_members().into(),
        };
        let existing = host.count_queue(queue).unwrap().existing;
        // More may just have been made for cgroups to come.
        let grown = queue.span == QueueSpan::Cgroup && existing > members;
        assert!(existing == members || grown, "{}: {existing} of {members} members exist", queue.name);
    }
    for family in (1..=host.registry.queue_ids).filter(|f| !families.contains(f)) {
        // The span with the most members.
        let gone = QueueInfo {
            name: "gone".into(),
            order: QueueOrder::Fifo,
            span: QueueSpan::Cgroup,
            id: family << 32,
            slots: BTreeSet::new(),
        };
        assert!(data.cgroup_members() >= data.nr_cpus());
        assert_eq!(host.count_queue(&gone).unwrap(), Count { existing: 0, queued: 0 }, "family {family}");
    }
}

/// Does the running policy have the queues that it declares?
fn has_its_queues(host: &Host, binary: &str) {
    let slot = host.data.active().slot;
    for wanted in Policy::from_binary(Path::new(binary)).unwrap().schema().unwrap().queues {
        let mut found = host.registry.queues.iter().filter(|q| q.queue() == wanted);
        let queue = found.next().unwrap_or_else(|| panic!("{binary} lacks its queue {}", wanted.name));
        assert!(queue.slots.contains(&slot.into()) && found.next().is_none());
    }
}

#[test]
fn queues_swap_round_through_every_span() {
    fresh();
    Cgroup::root().share_cpu();
    let load = load(150);
    let churn = Churn::start(&load);
    report(&["run", PER_CGROUP]);
    let watch = EnabledWatch::start();
    has_its_queues(&host(), PER_CGROUP);
    // One more than can run at once: someone waits at each commit.
    let root = Cgroup::root();
    let busy: Vec<_> = (0..=host().data.nr_cpus()).map(|_| Busy::start(&root)).collect();
    all_advance(&load);

    let (mut handed, mut back, mut running, mut before) = (0, 0, PER_CGROUP, None);
    let swaps = rounds(SWAPS) as usize;
    for n in 0..swaps {
        // Each to each; every third time back to the one before.
        let next = match before {
            Some(before) if n % 3 == 2 => before,
            _ => ALL[(n * 7 + n / 4) % 4],
        };
        let done = if Some(next) == before && n % 3 == 2 {
            back += 1;
            report(&["rollback"])
        } else {
            report(&["swap", next])
        };
        handed += done.tasks_handed_over;
        let fates: Vec<_> = done.queues.iter().map(|q| format!("{} {}", q.fate, q.queue)).collect();
        if next == running {
            assert!(fates.iter().all(|f| f.starts_with("kept")), "{running} to {next}: {fates:?}");
        } else {
            assert!(fates.contains(&"handed over work".to_string()), "{running} to {next}: {fates:?}");
        }
        let now = host();
        has_its_queues(&now, next);
        nothing_leaks(&now);
        all_advance(&load);
        (before, running) = (Some(running), next);
    }
    println!("{swaps} commits, {back} of them rollbacks, {handed} tasks handed over");
    assert!(back > swaps / 4 - 1 && handed > 0, "{back} rollbacks, {handed} tasks handed over");
    drop(busy);
    churn.finish();
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// What the scheduler knows of a cgroup: its number plus one, 0 for none.
fn number(group: &Cgroup) -> u32 {
    let map = Pins::open().unwrap().map("scxu_cgroup_numbers").unwrap();
    let value = map.lookup(&group.key().to_ne_bytes(), MapFlags::ANY).unwrap();
    value.map_or(0, |bytes| u32::from_ne_bytes(bytes[..4].try_into().unwrap()))
}

/// The queue that the tasks of a cgroup were last put on, as queue_cgroup's state says.
fn last_queue(host: &Host, group: &Cgroup) -> u64 {
    let column =
        host.registry.layout.scopes[&Scope::Cgroup].columns.iter().find(|c| c.name == "queue").unwrap();
    let record =
        host.records(Scope::Cgroup).unwrap().lookup(&group.key().to_ne_bytes(), MapFlags::ANY).unwrap();
    record.map_or(0, |r| u64::from_ne_bytes(r[column.offset as usize..][..8].try_into().unwrap()))
}

#[test]
fn queues_for_cgroups_that_come_later() {
    fresh();
    Cgroup::root().share_cpu();
    report(&["run", SINGLE]);
    let watch = EnabledWatch::start();
    let earlier = Cgroup::new("earlier");
    report(&["swap", PER_CGROUP]);
    let later = Cgroup::new("later");
    let inner = {
        later.share_cpu();
        Cgroup::new("later/inner")
    };

    // Each has a queue of its own, and its tasks go there.
    let id = host().registry.queues.iter().find(|q| q.span == QueueSpan::Cgroup).unwrap().id;
    let groups = [&Cgroup::root(), &earlier, &later, &inner];
    let numbers: BTreeSet<_> = groups.iter().map(|g| number(g)).collect();
    assert_eq!(numbers.len(), 4, "each has its own: {numbers:?}");
    assert_eq!(number(&Cgroup::root()), 1, "the root was the first");
    for group in [&earlier, &inner] {
        let busy = Busy::start(group);
        let own = id | u64::from(number(group) - 1);
        wait_until("its tasks are on its queue", || last_queue(&host(), group) == own);
        drop(busy);
    }

    // Many more than stand ahead: more are made, and none does without for long.
    let load = load(150);
    let begin = host().data.cgroup_members() as usize;
    let many: Vec<_> = (0..begin + MANY_CGROUPS).map(|n| Cgroup::new(&format!("many{n}"))).collect();
    wait_until("each has a number", || many.iter().all(|g| number(g) != 0));
    let numbers: BTreeSet<_> = many.iter().chain(groups).map(number).collect();
    assert_eq!(numbers.len(), many.len() + groups.len(), "each has its own");
    let now = host();
    assert!(now.data.cgroup_members() as usize > begin + MANY_CGROUPS);
    nothing_leaks(&now);

    // Swaps away with tasks on very many queues, and back.
    for (n, pid) in load.pids().enumerate() {
        many[n * 97 % many.len()].take(pid as i32);
    }
    let busy: Vec<_> = many.iter().step_by(100).map(Busy::start).collect();
    let mut handed = 0;
    for next in [SINGLE, PER_CGROUP, PER_CPU, PER_CGROUP, PER_LLC, PER_CGROUP] {
        handed += report(&["swap", next]).tasks_handed_over;
        handed += report(&["rollback"]).tasks_handed_over;
        handed += report(&["rollback"]).tasks_handed_over;
        nothing_leaks(&host());
        all_advance(&load);
    }
    assert!(handed > 0);
    drop(busy);

    // When they are gone their numbers rest, and are then given again.
    let at_rest = |what: &str| {
        let few = || host().data.cgroup_numbers() <= groups.len() as u32;
        wait_until(what, few);
    };
    let count = many.len();
    drop(many);
    at_rest("the numbers are free");
    let members = host().data.cgroup_members();
    let again: Vec<_> = (0..count).map(|n| Cgroup::new(&format!("again{n}"))).collect();
    wait_until("each has a number", || again.iter().all(|g| number(g) != 0));
    assert_eq!(host().data.cgroup_members(), members, "there were enough");
    drop(again);
    at_rest("the numbers are free again");
    all_advance(&load);
    nothing_leaks(&host());
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn queues_of_a_swap_that_is_killed() {
    fresh();
    Cgroup::root().share_cpu();
    let load = load(150);
    let churn = Churn::start(&load);
    report(&["run", PER_CGROUP]);
    for binary in [PER_CPU, SINGLE, PER_LLC] {
        report(&["swap", binary]);
    }
    let begin = Instant::now();
    report(&["swap", PER_CGROUP]);
    let length = begin.elapsed();
    let watch = EnabledWatch::start();
    let kills = rounds(KILLS);
    for n in 0..kills {
        let binary = ALL[(n * 3 + n / 4) as usize % 4];
        let mut swap = Command::new(binary).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(length * n / kills + Duration::from_micros(u64::from(n) * 131 % 1000));
        swap.kill().unwrap();
        swap.wait().unwrap();
        if status().pending.is_some() {
            wait_until("nobody is left waiting", || load.progress().overdue_ns() < 2_000_000_000);
        }
        let next = if n % 2 == 0 { cli(&["rollback"]) } else { cli(&["swap", ALL[n as usize / 2 % 4]]) };
        assert_eq!(next.code, 0, "{}{}", next.out, next.err);
        nothing_leaks(&host());
        all_advance(&load);
    }
    churn.finish();
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn queues_of_a_policy_attached_directly() {
    fresh();
    Cgroup::root().share_cpu();
    let group = Cgroup::new("direct");
    for binary in ALL {
        let mut direct = start_by_hand(binary, &["--direct"]);
        let load = load(100);
        load.pids().for_each(|pid| group.take(pid as i32));
        all_advance(&load);
        // Not before: the kernel counts an enable up a moment after it says `enabled`.
        let watch = EnabledWatch::start();
        // One that came later shares its parent's queue.
        let later = Cgroup::new("direct_later");
        load.pids().for_each(|pid| later.take(pid as i32));
        all_advance(&load);
        watch.finish();
        load.stop().unwrap();
        kill(direct.id() as i32, libc::SIGINT);
        assert!(direct.wait().unwrap().success());
        wait_until("it is detached", || scx_upgrade_engine::kernel::sysfs::state() == "disabled");
    }
}

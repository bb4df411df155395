//! The sweep of many records: the plan in instructions, shared among CPUs, does to each what the reference interpreter
//! does; and it costs a fraction of what the kernel's own way costs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::process::Command;
use std::process::Stdio;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::oracle;
use e2e::oracle::host;
use e2e::pids;
use e2e::report;
use e2e::sleepy_load;
use e2e::wait_until;
use guest::reader::Entry;
use guest::reader::Key;
use guest::reader::Reader;
use guest::sweep;
use scx_upgrade_engine::observe::report::Report;
use state_migrate::Layout;
use state_migrate::Plan;
use state_migrate::Scope;
use state_migrate::apply;
use state_migrate::plan;
use state_migrate::plan_back;

/// Enough for the sweep to be shared, and its plan to be put into instructions.
const THREADS: usize = 4_500;

/// Every task that slept through it against the plan, applied to what it held before; how many there were.
fn audit(before: &HashMap<Key, Entry>, after: &[Entry], from: &Layout, plan: &Plan) -> usize {
    let columns = &plan.layout.scopes[&Scope::Task].columns;
    let steps = &plan.steps[&Scope::Task];
    let mut equal = 0;
    for new in after.iter().filter(|e| e.has_record() && !e.is_idle_thread()) {
        let Some(old) = before.get(&new.key()).filter(|old| old.has_record()) else { continue };
        if !old.is_asleep() || !new.is_asleep() || old.switches() != new.switches() {
            continue;
        }
        let mut expected = oracle::task(old, from);
        apply(steps, &mut expected).unwrap();
        for column in columns {
            let at = column.offset as usize..(column.offset + column.ty.size()) as usize;
            assert_eq!(new.column(column), &expected[at], "pid {}, {}", new.key().pid, column.name);
        }
        equal += 1;
    }
    equal
}

fn snapshot(reader: &mut Reader) -> Vec<Entry> {
    reader.snapshot().unwrap().entries
}

fn by_key(entries: Vec<Entry>) -> HashMap<Key, Entry> {
    entries.into_iter().map(|e| (e.key(), e)).collect()
}

#[test]
fn a_plan_in_instructions_does_what_the_reference_does() {
    fresh();
    guest::load::raise_limits(THREADS).unwrap();
    let load = sleepy_load(THREADS, 60.0);
    report(&["run", "/bin/sweep_1"]);
    let mut reader = Reader::open(&host()).unwrap();
    let watch = EnabledWatch::start();
    let schema = scx_upgrade_engine::Policy::from_binary("/bin/sweep_2".as_ref()).unwrap().schema().unwrap();
    for _ in 0..3 {
        let then = host();
        let (active, layout) = (then.data.active(), then.registry.layout.clone());
        let slot = then.registry.choose_slot(active.slot);
        let mut evicted = layout.clone();
        evicted.evict(slot.into());
        let there = plan(&evicted, Some(active.slot.into()), &schema, slot.into()).unwrap();
        let before = by_key(snapshot(&mut reader));
        let swapped = report(&["swap", "/bin/sweep_2"]);
        let swept = swapped.swept("task").expect("the plan has steps, and yet nothing was swept");
        assert!(swept.visited >= THREADS as u64 && swept.missing == 0, "{swept:?}");
        // Ops may have come first to many of them: how many depends on how soon the sweep gets a CPU.
        assert!(swept.applied > 0, "the sweep found nothing to do: {swept:?}");
        assert!(audit(&before, &snapshot(&mut reader), &layout, &there) > THREADS / 20);

        let then = host();
        let (active, layout) = (then.data.active(), then.registry.layout.clone());
        let target = then.registry.rollback_target(active.slot).unwrap().slot;
        let back = plan_back(&layout, active.slot.into(), target.into()).unwrap();
        let before = by_key(snapshot(&mut reader));
        report(&["rollback"]);
        assert!(audit(&before, &snapshot(&mut reader), &layout, &back) > THREADS / 20);
    }
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// Those who help are tasks like any: the new policy may starve them, and then the sweep ends without them.
#[test]
fn a_policy_that_starves_who_helps_does_not_keep_the_sweep() {
    fresh();
    guest::load::raise_limits(THREADS).unwrap();
    let load = sleepy_load(THREADS, 60.0);
    report(&["run", "/bin/ledger_b"]);
    let watch = EnabledWatch::start();
    let (root, starved) = (Cgroup::root(), Cgroup::new("sweep_starved"));
    let cgroup = starved.id().to_string();
    let generation = host().data.active().generation;
    let mut swap = Command::new("/bin/scx-upgrade");
    swap.args(["--json", "swap", "/bin/misbehave", "--", "--how", "starve", "--cgroup", &cgroup]);
    let swap = swap.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    starved.take(swap.id() as i32);
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&root)).collect();
    wait_until("it is swept", || {
        let host = host();
        host.data.active().generation > generation && host.registry.pending.is_none()
    });
    for pid in pids("misbehave") {
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group.contains("sweep_starved"), "{group}");
    }
    drop(hogs);
    let out = swap.wait_with_output().unwrap();
    let swapped: Report = serde_json::from_slice(&out.stdout).expect("the report is no JSON");
    let swept = swapped.swept("task").expect("the plan has steps, and yet nothing was swept");
    assert!(swept.visited >= THREADS as u64 && swept.missing == 0, "{swept:?}");
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// What the sweep must be faster than, and by how much: ratios of times of the same run, the best of its rounds, with
/// room for a machine that does other things meanwhile. What is measured when it does not is in the README.
#[test]
fn a_sweep_costs_a_fraction_of_detach_and_attach() {
    fresh();
    let options = sweep::Options {
        threads: THREADS,
        cgroups: 200,
        rounds: 3,
        delays: 0,
        window: std::time::Duration::ZERO,
        worker: Some("/bin/load".into()),
    };
    let rounds = sweep::run(&options).unwrap().rounds;
    let best = |of: fn(&sweep::Round) -> f64| rounds.iter().map(of).fold(f64::INFINITY, f64::min);
    let to_reattach = best(|r| r.sweep_ns() as f64 / r.reattach_ns() as f64);
    let beyond = best(|r| r.beyond_ns() as f64 / r.reattach_ns() as f64);
    println!(
        "sweep / (detach + attach): {to_reattach:.3}; a swap without conversions, past settle: {beyond:.5}"
    );
    for round in &rounds {
        assert_eq!(round.same.sweep_ns, 0, "a swap that converts nothing swept");
        let scopes: Vec<_> = round.changed_swept.iter().map(|s| s.scope.as_str()).collect();
        assert_eq!(scopes, ["task", "cgroup"]);
        assert!(round.changed_swept[1].visited >= 200);
    }
    assert!(to_reattach < 0.1, "a sweep takes {to_reattach} of detach and attach");
    assert!(beyond < 0.02, "a swap without conversions takes {beyond} of detach and attach past the settle");
    fresh();
}

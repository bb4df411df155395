//! Every kind of change between versions: a random walk over six versions of a policy under load. After each swap and
//! each rollback an oracle outside of the schedulers says what every record must hold: the plan, applied by the
//! reference interpreter to what the record held before.
//!
//! `SCX_UPGRADE_CHAIN=1000` in the environment makes the walk longer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::path::Path;

use e2e::Cgroup;
use e2e::Churn;
use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::oracle;
use e2e::oracle::Walk;
use e2e::oracle::host;
use e2e::report;
use e2e::rounds;
use e2e::sleepy_load;
use e2e::wait_until;
use guest::reader::Entry;
use guest::reader::Key;
use guest::reader::Reader;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::host::Host;
use state_migrate::HEADER;
use state_migrate::Layout;
use state_migrate::Plan;
use state_migrate::Scope;
use state_migrate::apply;
use state_migrate::plan;
use state_migrate::plan_back;

/// What one commit did to the one record of `scope` with this key, but for what counts on.
fn audit_one(scope: Scope, key: u32, before: Option<Vec<u8>>, now: &Host, plan: &Plan, what: &str) {
    let Some(mut expected) = before else { return };
    let held =
        oracle::record(now, scope, key).unwrap_or_else(|| panic!("{what}: a record of {scope} is gone"));
    apply(plan.steps.get(&scope).map_or(&[][..], Vec::as_slice), &mut expected).unwrap();
    for column in plan.layout.scopes[&scope].columns.iter().filter(|c| !COUNTERS.contains(&c.name.as_str())) {
        let at = column.offset as usize..(column.offset + column.ty.size()) as usize;
        assert!(at.start >= HEADER as usize);
        assert_eq!(held[at.clone()], expected[at], "{what}: {scope}.{}", column.name);
    }
}

/// Columns that every turn of any task changes.
const COUNTERS: [&str; 2] = ["turns", "touches"];

/// What one commit did to every task, against what the plan says that it does. Gives the tasks compared.
fn audit(
    before: &HashMap<Key, Entry>,
    after: &[Entry],
    from: &Layout,
    plan: &Plan,
    epoch: u32,
) -> (usize, usize) {
    let columns = &plan.layout.scopes[&Scope::Task].columns;
    let steps = plan.steps.get(&Scope::Task).map_or(&[][..], Vec::as_slice);
    let (mut asleep, mut ran) = (0, 0);
    for new in after.iter().filter(|e| e.has_record() && !e.is_idle_thread()) {
        assert_eq!(new.stamp, epoch, "pid {} missed a plan", new.key().pid);
        let Some(old) = before.get(&new.key()).filter(|old| old.has_record()) else { continue };
        let slept = old.is_asleep() && new.is_asleep() && old.switches() == new.switches();
        let mut expected = oracle::task(old, from);
        // A task's first turn under chain_1 sets everything: nothing can be said of one that may just have had it.
        let turns = columns.iter().find(|c| c.name == "runs").unwrap();
        if !slept && expected[turns.offset as usize..][..4] == [0; 4] {
            continue;
        }
        apply(steps, &mut expected).unwrap();
        for column in columns.iter().filter(|c| slept || c.name != "runs") {
            let at = column.offset as usize..(column.offset + column.ty.size()) as usize;
            assert_eq!(
                new.column(column),
                &expected[at],
                "pid {} ({}), task.{}: {} at {}",
                new.key().pid,
                if slept { "asleep" } else { "ran" },
                column.name,
                column.ty,
                column.offset
            );
        }
        if slept { asleep += 1 } else { ran += 1 }
    }
    (asleep, ran)
}

fn snapshot(reader: &mut Reader) -> Vec<Entry> {
    reader.snapshot().unwrap().entries
}

#[test]
fn a_walk_over_six_versions_is_what_the_oracle_says() {
    fresh();
    let steps =
        std::env::var("SCX_UPGRADE_CHAIN").ok().and_then(|n| n.parse().ok()).unwrap_or(rounds(60) as usize);
    let load = sleepy_load(300, 10.0);
    report(&["run", "/bin/chain_1"]);
    let schemas: Vec<_> = (1..=6)
        .map(|n| Policy::from_binary(Path::new(&format!("/bin/chain_{n}"))).unwrap().schema().unwrap())
        .collect();
    let groups = ["chain_a", "chain_a/inner", "chain_b"].map(Cgroup::new);
    for (pid, group) in load.pids().zip(groups.iter().cycle()) {
        group.take(pid as i32);
    }
    let churn = Churn::start(&load);
    let mut reader = Reader::open(&host()).unwrap();
    let watch = EnabledWatch::start();
    let begin = load.progress();
    // Let tasks have their first turn, which sets the values.
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());

    let mut walk = Walk(7);
    let (mut asleep, mut ran, mut compared, mut refused, mut converted, mut backward) = (0, 0, 0, 0, 0, 0);
    for n in 0..steps {
        let then = host();
        let active = then.data.active();
        let layout = then.registry.layout.clone();
        let target = then.registry.rollback_target(active.slot).map(|g| g.slot);
        // The first lap goes through the chain in order; then anything goes.
        let version = if n < 5 { n as u64 + 2 } else { walk.next(6) + 1 };
        let back = n >= 5 && target.is_some() && walk.next(3) == 0;
        let planned = if back {
            plan_back(&layout, active.slot.into(), target.unwrap().into())
        } else {
            let slot = then.registry.choose_slot(active.slot);
            let mut evicted = layout.clone();
            evicted.evict(slot.into());
            plan(&evicted, Some(active.slot.into()), &schemas[version as usize - 1], slot.into())
        };
        let global = oracle::record(&then, Scope::Global, 0);
        let cgroups = groups.each_ref().map(|g| oracle::record(&then, Scope::Cgroup, g.key()));
        let before: HashMap<_, _> = snapshot(&mut reader).into_iter().map(|e| (e.key(), e)).collect();

        let binary = format!("/bin/chain_{version}");
        let ran_verb = if back { cli(&["rollback"]) } else { cli(&["swap", &binary]) };
        let what = if back { "rollback".to_string() } else { format!("swap to chain_{version}") };
        let plan = match planned {
            Ok(plan) => plan,
            Err(e) => {
                assert_eq!(ran_verb.code, 4, "{what}: the oracle says {e}, the command {}", ran_verb.err);
                assert_eq!(host().data.active(), active, "{what} was refused and yet something changed");
                refused += 1;
                continue;
            }
        };
        assert_eq!(ran_verb.code, 0, "{what}: {}{}", ran_verb.out, ran_verb.err);
        let now = host();
        let has_steps = plan.steps.values().any(|s| !s.is_empty());
        assert_eq!(now.data.active().epoch, active.epoch + u32::from(has_steps));
        assert_eq!(now.registry.layout, plan.layout, "{what}: the host's layout is not the plan's");
        let after = snapshot(&mut reader);
        let (a, r) = audit(&before, &after, &layout, &plan, now.data.active().epoch);
        asleep += a;
        ran += r;
        converted += usize::from(has_steps);
        backward += usize::from(back);

        audit_one(Scope::Global, 0, global, &now, &plan, &what);
        for (group, before) in groups.iter().zip(cgroups) {
            compared += usize::from(before.is_some());
            audit_one(Scope::Cgroup, group.key(), before, &now, &plan, &what);
        }
        let classes = reader.classes().unwrap();
        assert_eq!(classes.fair, 0, "{what}: tasks in the fair class");
    }
    churn.finish();
    println!(
        "{steps} steps: {converted} with conversions, {backward} rollbacks, {refused} refused; records compared: \
         {asleep} of tasks asleep, {ran} of tasks that ran, {compared} of cgroups"
    );
    assert!(
        asleep > 20 * steps && ran > steps && converted > steps / 3 && compared > steps,
        "the walk shows too little"
    );
    let progress = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&progress).is_empty());
    watch.finish();
    load.stop().unwrap();
    fresh();
}

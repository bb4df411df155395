//! Conversions by programs of the author's own, in every scope, under load: forward when a record is first touched or by
//! the policy's own sweep, back by the newer policy's sweep while no policy runs. After each swap and each rollback, those
//! included that were killed, an oracle outside of the schedulers says what every record must hold: the plan, applied by
//! the reference interpreter with a twin in Rust of each conversion.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::PINS;
use e2e::cli;
use e2e::command;
use e2e::fresh;
use e2e::kill;
use e2e::oracle;
use e2e::oracle::Walk;
use e2e::oracle::host;
use e2e::report;
use e2e::rounds;
use e2e::sleepy_load;
use e2e::start_by_hand;
use e2e::status;
use e2e::wait_until;
use guest::load::Load;
use guest::reader::Entry;
use guest::reader::Key;
use guest::reader::Reader;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::host::abi::Active;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::report::Report;
use state_migrate::Call;
use state_migrate::Layout;
use state_migrate::Plan;
use state_migrate::Schema;
use state_migrate::Scope;
use state_migrate::Step;
use state_migrate::apply_with;
use state_migrate::plan;
use state_migrate::plan_back;

const V1: &str = "/bin/convert_1";
const V2: &str = "/bin/convert_2";
const V3: &str = "/bin/convert_3";
/// Refuses itself when its object is read: a command that does nothing but what each does first, finish what was cut off.
const REFUSED: &str = "/bin/bad_pointer";
/// Columns that go up with each turn.
const COUNTERS: [&str; 5] = ["runs", "tally", "beat", "turns", "seen"];
const WALK: u32 = 24;
const KILLS: u32 = 16;

/// The conversions of `tests/policies/src/bpf/convert_*.bpf.c`, again.
fn twin(call: &Call, old: &[u8], new: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at * 4..][..4].try_into().unwrap());
    let half = |bytes: &[u8], at: usize| u16::from_le_bytes(bytes[at * 2..][..2].try_into().unwrap());
    let long = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap());
    match call.program.as_str() {
        "average_of" => {
            let (mut sum, mut count) = (0, 0);
            for i in 0..8 {
                sum += u64::from(word(old, i)) << i;
                count += u64::from(word(old, i));
            }
            new.copy_from_slice(&(sum * 100).checked_div(count).unwrap_or(0).to_le_bytes());
        }
        "history_of" => {
            for i in 1..8 {
                new[i * 4..][..4].copy_from_slice(&((long(old, 0) >> (i * 4)) as u32).to_le_bytes());
            }
        }
        "pack" => {
            let packed = u64::from(word(old, 0)) << 32 | u64::from(half(old, 2)) << 8 | u64::from(old[6]);
            new.copy_from_slice(&packed.to_le_bytes());
        }
        // The byte of padding stays.
        "unpack" => {
            let packed = long(old, 0);
            new[..4].copy_from_slice(&((packed >> 32) as u32).to_le_bytes());
            new[4..6].copy_from_slice(&((packed >> 8) as u16).to_le_bytes());
            new[6] = packed as u8;
        }
        "split" | "join" => new.copy_from_slice(&[old[2], old[3], old[0], old[1]]),
        "odd_forth" => {
            let last = half(new, 3);
            for i in 0..3 {
                let value = u16::from(old[i]).wrapping_mul(257).wrapping_add(last);
                new[i * 2..][..2].copy_from_slice(&value.to_le_bytes());
            }
        }
        "odd_back" => (0..3).for_each(|i| new[i] = old[i * 2] ^ 0x55),
        "turn" => {
            (0..8).for_each(|i| new[i * 8..][..8].copy_from_slice(&(!long(old, (i + 1) & 7)).to_le_bytes()))
        }
        "turn_back" => {
            (0..8).for_each(|i| new[((i + 1) & 7) * 8..][..8].copy_from_slice(&(!long(old, i)).to_le_bytes()))
        }
        "level_of" => new[0] = 1 + (64 - long(old, 0).leading_zeros()) as u8,
        other => panic!("no twin of {other}"),
    }
}

fn apply(plan: &Plan, scope: Scope, record: &mut [u8]) {
    apply_with(plan.steps.get(&scope).map_or(&[][..], Vec::as_slice), record, twin).unwrap();
}

/// All records at one time, more or less.
struct Shot {
    layout: Layout,
    active: Active,
    tasks: HashMap<Key, Entry>,
    /// Those of cgroups, CPUs and the global one.
    others: BTreeMap<(Scope, u32), Vec<u8>>,
}

impl Shot {
    /// What a task's column holds that the running policy calls so.
    fn task<'e>(&self, entry: &'e Entry, name: &str) -> &'e [u8] {
        entry.column(self.layout.column(Scope::Task, self.active.slot.into(), name).unwrap())
    }

    /// By how much the counters of a task are ahead of its turns. The same whatever runs, and whatever ran meanwhile.
    fn ahead(&self, entry: &Entry) -> (u32, u8) {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let runs = number(self.task(entry, "runs"));
        let tally = self.task(entry, "tally");
        let split = host_type(&self.layout, self.active, "tally").starts_with("struct");
        let tally = if split { number(&[tally[2], tally[3], tally[0], tally[1]]) } else { number(tally) };
        (tally.wrapping_sub(runs), self.task(entry, "beat")[0].wrapping_sub(runs as u8))
    }
}

fn host_type(layout: &Layout, active: Active, name: &str) -> String {
    layout.column(Scope::Task, active.slot.into(), name).unwrap().ty.to_string()
}

struct World {
    load: Load,
    reader: Reader,
    groups: Vec<Cgroup>,
    watch: EnabledWatch,
    asleep: usize,
    ran: usize,
    others: usize,
}

impl World {
    /// The first version under load, and every task has had its first turn.
    fn begin() -> World {
        fresh();
        let load = sleepy_load(300, 5.0);
        let mut groups = vec![Cgroup::root(), Cgroup::new("convert-x"), Cgroup::new("convert-y")];
        for (i, pid) in load.pids().enumerate() {
            groups[i % groups.len()].take(pid as i32);
        }
        report(&["run", V1]);
        // One that has been used, and then no op looks at for all of the walk.
        let idle = Cgroup::new("convert-idle");
        let busy = Busy::start(&idle);
        let begin = load.progress();
        wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
        drop(busy);
        groups.push(idle);
        let reader = Reader::open(&host()).unwrap();
        World { load, reader, groups, watch: EnabledWatch::start(), asleep: 0, ran: 0, others: 0 }
    }

    fn shot(&mut self) -> Shot {
        let host = host();
        let cpus = libbpf_rs::num_possible_cpus().unwrap() as u32;
        let groups = self.groups.iter().map(|g| (Scope::Cgroup, g.key()));
        let keys = groups.chain((0..cpus).map(|cpu| (Scope::Cpu, cpu))).chain([(Scope::Global, 0)]);
        Shot {
            layout: host.registry.layout.clone(),
            active: host.data.active(),
            others: keys.filter_map(|(s, k)| Some(((s, k), oracle::record(&host, s, k)?))).collect(),
            tasks: self.reader.snapshot().unwrap().entries.into_iter().map(|e| (e.key(), e)).collect(),
        }
    }

    /// What one commit did to every record, against what the plan says that it does.
    fn audit(&mut self, before: &Shot, after: &Shot, plan: &Plan, what: &str) {
        assert_eq!(after.layout, plan.layout, "{what}: the host's layout is not the plan's");
        let columns = &plan.layout.scopes[&Scope::Task].columns;
        let turns = before.layout.column(Scope::Task, before.active.slot.into(), "runs").unwrap();
        for new in after.tasks.values().filter(|e| e.has_record() && !e.is_idle_thread()) {
            let pid = new.key().pid;
            assert_eq!(new.stamp, after.active.epoch, "{what}: pid {pid} missed a plan");
            let Some(old) = before.tasks.get(&new.key()).filter(|old| old.has_record()) else { continue };
            let slept = old.is_asleep() && new.is_asleep() && old.switches() == new.switches();
            let mut expected = oracle::task(old, &before.layout);
            // A task's first turn under the first version sets everything.
            if !slept && expected[turns.offset as usize..][..4] == [0; 4] {
                continue;
            }
            apply(plan, Scope::Task, &mut expected);
            for column in columns.iter().filter(|c| slept || !COUNTERS.contains(&c.name.as_str())) {
                let at = column.offset as usize..(column.offset + column.ty.size()) as usize;
                assert_eq!(
                    new.column(column),
                    &expected[at],
                    "{what}: pid {pid} ({}), task.{}: {} at {}",
                    if slept { "asleep" } else { "ran" },
                    column.name,
                    column.ty,
                    column.offset
                );
            }
            if slept { self.asleep += 1 } else { self.ran += 1 }
        }
        for (&(scope, key), old) in &before.others {
            let seen = before.layout.column(scope, before.active.slot.into(), "seen").unwrap();
            if old[seen.offset as usize] == 0 {
                continue;
            }
            let mut expected = old.clone();
            apply(plan, scope, &mut expected);
            let new = &after.others[&(scope, key)];
            let stamp = u32::from_le_bytes(new[4..8].try_into().unwrap());
            assert_eq!(stamp, after.active.epoch, "{what}: {scope} {key} missed a plan");
            let still = |name: &str| !COUNTERS.contains(&name);
            for column in plan.layout.scopes[&scope].columns.iter().filter(|c| still(&c.name)) {
                let at = column.offset as usize..(column.offset + column.ty.size()) as usize;
                assert_eq!(
                    new[at.clone()],
                    expected[at],
                    "{what}: {scope} {key}, {}: {}",
                    column.name,
                    column.ty
                );
                self.others += 1;
            }
        }
    }

    /// In a rollback that held nothing at all is lost, not even by tasks that ran all the while.
    fn audit_counters(&self, before: &Shot, after: &Shot) {
        let mut compared = 0;
        for new in after.tasks.values().filter(|e| e.has_record() && e.is_asleep()) {
            let Some(old) = before.tasks.get(&new.key()) else { continue };
            let runs = before.task(old, "runs");
            if old.has_record() && old.is_asleep() && *runs != [0; 4] {
                assert_eq!(before.ahead(old), after.ahead(new), "pid {} lost a count", new.key().pid);
                compared += 1;
            }
        }
        assert!(compared > 100, "only {compared} tasks slept at both ends of the rollback");
    }

    /// The sweep's programs are pinned for the policies that have conversions, and for no other.
    fn audit_pins(&self) {
        let host = host();
        for slot in 0..4u8 {
            let has = host.registry.slot(slot).is_some_and(|s| !s.schema.conversions.is_empty());
            for program in ["tasks", "cgroups", "cpus", "global"] {
                let pin = format!("{PINS}/prog_scxu_sweep_{program}_slot{slot}");
                assert_eq!(Path::new(&pin).exists(), has, "{pin}");
            }
        }
    }

    fn end(self, commits: usize) {
        println!(
            "records compared: {} of tasks asleep, {} of tasks that ran, {} columns of other scopes",
            self.asleep, self.ran, self.others
        );
        assert!(self.asleep > 50 * commits && self.others > commits, "too little was compared");
        let progress = self.load.progress();
        wait_until("every kind advances", || self.load.progress().stuck_since(&progress).is_empty());
        self.watch.finish();
        self.load.stop().unwrap();
        fresh();
    }
}

fn schema(binary: &str) -> Schema {
    Policy::from_binary(Path::new(binary)).unwrap().schema().unwrap()
}

fn calls(plan: &Plan) -> usize {
    plan.steps.values().flatten().filter(|s| matches!(s, Step::Call(_))).count()
}

/// The way from the policy that runs to a new one.
fn way_there(layout: &Layout, schema: &Schema) -> Plan {
    let host = host();
    let active = host.data.active().slot;
    let slot = host.registry.choose_slot(active);
    let mut layout = layout.clone();
    layout.evict(slot.into());
    plan(&layout, Some(active.into()), schema, slot.into()).unwrap()
}

/// The way from `before` to the policy that runs in `after`, both loaded. A hold may have cost another policy its slot.
fn way_back(before: &Shot, after: &Shot, gone: &[u8]) -> Plan {
    let mut layout = before.layout.clone();
    gone.iter().for_each(|slot| layout.evict((*slot).into()));
    plan_back(&layout, before.active.slot.into(), after.active.slot.into()).unwrap()
}

fn loaded() -> Vec<u8> {
    status().slots.iter().map(|s| s.slot).collect()
}

/// The slots of `before` in which nothing is loaded any more.
fn gone(before: &[u8]) -> Vec<u8> {
    let now = loaded();
    before.iter().copied().filter(|slot| !now.contains(slot)).collect()
}

#[test]
fn records_are_converted_and_brought_back_as_the_oracle_says() {
    let mut world = World::begin();
    let versions = [V1, V2, V3];
    let schemas = versions.map(schema);
    let mut walk = Walk(11);
    let (mut converted, mut held, mut evicted, mut refused) = (0, 0, 0, 0);
    let (mut hold_ns, mut sweep_ns, mut load_ns) = (0, 0, 0);
    // There with every slot taken, so that a policy has to go for the hold; back, there again and back; anew, back, and
    // there; on to the third, back and there. Then anything goes.
    let there_and_back = [Some(1), None, None, None];
    let script = [Some(0), Some(0)].into_iter().chain(there_and_back).chain([
        Some(1),
        None,
        None,
        Some(2),
        None,
        None,
    ]);
    let script: Vec<Option<usize>> = script.collect();
    let steps = WALK as usize;
    for n in 0..steps {
        let before = world.shot();
        let slots = loaded();
        let there = match script.get(n) {
            Some(version) => *version,
            None => (walk.next(3) > 0).then(|| walk.next(3) as usize),
        };
        let then = host();
        let Some(version) = there else {
            let done = report(&["rollback"]);
            let after = world.shot();
            let plan = way_back(&before, &after, &gone(&slots));
            let holds = plan.caller().is_some_and(|slot| slot != u32::from(after.active.slot));
            assert_eq!(done.timings.hold_ns > 0, holds, "step {n}: {:?}", done.timings);
            assert!(holds || gone(&slots).is_empty(), "a policy went for nothing");
            world.audit(&before, &after, &plan, &format!("step {n}, rollback"));
            if holds {
                world.audit_counters(&before, &after);
                held += 1;
                hold_ns = done.timings.hold_ns.max(hold_ns);
                sweep_ns = done.timings.sweep_ns.max(sweep_ns);
                evicted += gone(&slots).len();
            }
            converted += calls(&plan);
            world.audit_pins();
            continue;
        };
        let slot = then.registry.choose_slot(before.active.slot);
        let mut layout = before.layout.clone();
        layout.evict(slot.into());
        let planned = plan(&layout, Some(before.active.slot.into()), &schemas[version], slot.into());
        let ran = cli(&["--json", "swap", versions[version]]);
        let what = format!("step {n}, swap to {}", versions[version]);
        match planned {
            Ok(plan) => {
                assert_eq!(ran.code, 0, "{what}: {}{}", ran.out, ran.err);
                let done: Report = serde_json::from_str(&ran.out).unwrap();
                load_ns = done.timings.load_ns.max(load_ns);
                let after = world.shot();
                world.audit(&before, &after, &plan, &what);
                converted += calls(&plan);
            }
            Err(e) => {
                assert_eq!(ran.code, 4, "{what}: the oracle says {e}, the command {}", ran.err);
                refused += 1;
            }
        }
        world.audit_pins();
    }
    println!(
        "{steps} steps: {converted} columns converted, {held} rollbacks held, {evicted} policies gone for it, {refused} swaps refused"
    );
    println!("longest: hold {hold_ns} ns, of it the sweep {sweep_ns} ns; load and verifier {load_ns} ns");
    assert!(converted > 20 && held >= 3 && evicted > 0, "the walk shows too little");
    world.end(steps - refused);
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Wait until the control word is not what it was, or the command has ended; a look takes no system call that could wait.
fn until_it_changes(child: &mut Child, then: Active) {
    let host = host();
    for look in 1u64.. {
        if host.data.active() != then || (look.is_multiple_of(1024) && child.try_wait().unwrap().is_some()) {
            return;
        }
    }
}

/// Kill a command: at a moment of its length, or some time after its first store to the control word.
fn kill_at(mut child: Child, n: u32, length: Duration, then: Active) {
    let wait = Duration::from_micros(u64::from(n) * 377 % 4000);
    if n.is_multiple_of(2) {
        std::thread::sleep(length * n / rounds(KILLS) + wait / 4);
    } else {
        until_it_changes(&mut child, then);
        std::thread::sleep(if n % 4 == 1 { Duration::ZERO } else { wait });
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The next command finishes or undoes what was cut off; nobody waits for ever until then.
fn repair(world: &World) {
    let now = status();
    assert_eq!(now.state, "enabled");
    if now.pending.is_some() {
        wait_until("nobody is left waiting", || world.load.progress().overdue_ns() < 2_000_000_000);
    }
    let next = command(&mut Command::new(REFUSED));
    assert_eq!(next.code, 4, "{}{}", next.out, next.err);
    let now = status();
    assert!(now.pending.is_none() && !now.held);
    assert_eq!(now.slots.iter().filter(|s| s.active).count(), 1, "exactly one policy runs");
    world.audit_pins();
}

#[test]
fn a_killed_conversion_is_finished_or_undone_there_and_back() {
    let mut world = World::begin();
    let second = schema(V2);
    let took = |args: &[&str]| {
        let begin = Instant::now();
        report(args);
        begin.elapsed()
    };
    let (there, back) = (took(&["swap", V2]), took(&["rollback"]));
    let (mut before, mut held, mut after_commit) = (0, 0, 0);
    let kills = rounds(KILLS);
    for n in 0..kills {
        // There.
        let old = world.shot();
        let mut forward = way_there(&old.layout, &second);
        kill_at(spawn(&mut Command::new(V2)), n, there, old.active);
        repair(&world);
        if status().generation == old.active.generation {
            before += 1;
            // What the one that was undone had placed has numbers that are not used again.
            forward = way_there(&host().registry.layout, &second);
            report(&["swap", V2]);
        } else {
            after_commit += 1;
        }
        let new = world.shot();
        world.audit(&old, &new, &forward, &format!("kill {n} of a swap"));

        // And back.
        let slots = loaded();
        kill_at(spawn(Command::new("/bin/scx-upgrade").arg("rollback")), n, back, new.active);
        held += u32::from(status().held);
        repair(&world);
        if status().generation == new.active.generation {
            before += 1;
            report(&["rollback"]);
        } else {
            after_commit += 1;
        }
        let again = world.shot();
        let plan = way_back(&new, &again, &gone(&slots));
        assert!(calls(&plan) > 0);
        world.audit(&new, &again, &plan, &format!("kill {n} of a rollback"));
        world.audit_counters(&new, &again);
    }
    println!(
        "killed before the commit: {before}, while held: {held}, after it or while held: {after_commit}"
    );
    assert!(held > 0 && before > 0 && after_commit > held, "the kills were not spread");
    world.end(2 * kills as usize);
}

#[test]
fn a_policy_with_conversions_attaches_directly() {
    fresh();
    let mut child = start_by_hand(V2, &["--direct"]);
    assert!(sysfs::ops().starts_with("convert_2"));
    kill(child.id() as i32, libc::SIGINT);
    child.wait().unwrap();
    assert!(sysfs::wait_for_state(sysfs::state, "disabled", Duration::from_secs(60)));
    fresh();
}

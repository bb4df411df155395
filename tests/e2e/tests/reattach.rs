//! Swaps that the kernel lets nobody do in place: the scheduler is detached and attached again, and what it knew of each
//! task, cgroup and CPU is still there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::advances;
use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::objects;
use e2e::pids;
use e2e::report;
use e2e::rounds;
use e2e::sleepy_load;
use e2e::status;
use e2e::wait_until;
use guest::reader::Entry;
use guest::reader::Key;
use guest::reader::Reader;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::direct::Direct;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::requirements;
use scx_upgrade_engine::kernel::sysfs;
use state_migrate::Layout;
use state_migrate::Scope;

const OFF: &str = "/bin/last_off";
const ON: &str = "/bin/last_on";
/// A version that no host has.
const OTHER_VERSION: u32 = 999;

fn host() -> Host {
    Host::running(&Pins::open().unwrap()).unwrap()
}

/// A column of a task, as a number.
fn number(entry: &Entry, layout: &Layout, name: &str) -> Option<u64> {
    let column = layout.scopes[&Scope::Task].columns.iter().find(|c| c.name == name)?;
    Some(entry.column(column).iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

/// A number in the record of another scope.
fn count(host: &Host, scope: Scope, key: u32, name: &str) -> u64 {
    let column = host.registry.layout.scopes[&scope].columns.iter().find(|c| c.name == name).unwrap();
    let record = host.records(scope).unwrap().lookup(&key.to_ne_bytes(), MapFlags::ANY).unwrap();
    record.map_or(0, |r| u64::from_le_bytes(r[column.offset as usize..][..8].try_into().unwrap()))
}

/// All that the policies know, at one time.
struct Known {
    layout: Layout,
    tasks: HashMap<Key, Entry>,
    /// By scope and key.
    counts: Vec<(Scope, u32, u64)>,
}

struct Knowledge {
    reader: Reader,
    groups: Vec<Cgroup>,
}

impl Knowledge {
    fn new(groups: Vec<Cgroup>) -> Knowledge {
        Knowledge { reader: Reader::open(&host()).unwrap(), groups }
    }

    fn now(&mut self) -> Known {
        let host = host();
        let mut counts = vec![(Scope::Global, 0, count(&host, Scope::Global, 0, "all_turns"))];
        for cpu in 0..libbpf_rs::num_possible_cpus().unwrap() as u32 {
            counts.push((Scope::Cpu, cpu, count(&host, Scope::Cpu, cpu, "cpu_turns")));
        }
        for group in &self.groups {
            counts.push((
                Scope::Cgroup,
                group.key(),
                count(&host, Scope::Cgroup, group.key(), "cgroup_turns"),
            ));
        }
        let entries = self.reader.snapshot().unwrap().entries;
        let tasks = entries.into_iter().filter(|e| e.has_record() && !e.is_idle_thread());
        Known { layout: host.registry.layout.clone(), tasks: tasks.map(|e| (e.key(), e)).collect(), counts }
    }

    /// What was known is known: of tasks asleep to the byte, of others at least as much. Gives the tasks compared.
    fn is_kept(&mut self, before: &Known) -> (usize, usize) {
        let after = self.now();
        for ((scope, key, old), (_, _, new)) in before.counts.iter().zip(&after.counts) {
            assert!(new >= old, "{scope} {key}: {old} turns became {new}");
        }
        let (mut asleep, mut ran) = (0, 0);
        for (key, new) in &after.tasks {
            let turns = |e: &Entry, l: &Layout| number(e, l, "turns").unwrap();
            let Some(old) = before.tasks.get(key) else { continue };
            assert!(turns(new, &after.layout) >= turns(old, &before.layout), "pid {} went back", key.pid);
            if !(old.is_asleep() && new.is_asleep() && old.switches() == new.switches()) {
                ran += 1;
                continue;
            }
            asleep += 1;
            assert_eq!(new.dsq_vtime, old.dsq_vtime, "dsq_vtime of pid {}", key.pid);
            for column in &before.layout.scopes[&Scope::Task].columns {
                // Where it is still there: a column keeps its place as long as it lives.
                if after.layout.scopes[&Scope::Task].columns.iter().any(|c| c.id == column.id) {
                    assert_eq!(
                        new.column(column),
                        old.column(column),
                        "pid {}: task.{}: {}",
                        key.pid,
                        column.name,
                        column.ty
                    );
                }
            }
        }
        (asleep, ran)
    }

    /// The invariants that the two policies keep, for each task. `both`: the columns that only one of them names were
    /// never given up, so turns under either add up.
    fn audit(&mut self, both: bool) {
        let mut faults = Vec::new();
        // A task that runs while it is read may be seen half-way through a turn: such a one is read again.
        for _ in 0..5 {
            let Known { layout, tasks, .. } = self.now();
            let fault = |entry: &Entry| {
                let pid = entry.key().pid;
                let get = |name| number(entry, &layout, name);
                let turns = get("turns").unwrap();
                let seal = (u64::from(pid) << 40 | turns).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let off = get("only_a").map_or(0, |n| i64::from(n as u32) - 7);
                let on = get("only_b").map_or(0, |n| -5 - i64::from(n as u32 as i32));
                let sums = !both || off + on == turns as i64;
                let marks = get("marks").is_none_or(|m| m == 0xaa_aaaa_aaaa);
                let sealed = get("seal") == Some(if turns > 0 { seal } else { 0 });
                (!(sums && marks && sealed)).then(|| format!("pid {pid}: {turns} turns, {off} off, {on} on"))
            };
            faults = tasks.values().filter_map(fault).collect();
            if faults.is_empty() {
                assert!(tasks.len() >= 300, "only {} tasks have records", tasks.len());
                return;
            }
        }
        panic!("{} faults, the first: {}", faults.len(), faults[0]);
    }

    fn nobody_is_in_the_fair_class(&mut self) {
        assert_eq!(self.reader.classes().unwrap().fair, 0);
    }
}

fn lasts() -> u64 {
    count(&host(), Scope::Global, 0, "lasts")
}

#[test]
fn another_ops_flag_takes_a_reattach_and_keeps_every_record() {
    fresh();
    let load = load(1000);
    report(&["run", OFF]);
    let groups = vec![Cgroup::root(), Cgroup::new("reattach-x")];
    load.pids().step_by(2).for_each(|pid| groups[1].take(pid as i32));
    let mut known = Knowledge::new(groups);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());

    // Told beforehand, and not done unasked.
    let watch = EnabledWatch::start();
    let plan = cli(&["plan", ON]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    for words in ["needs --allow-reattach", "SCX_OPS_ENQ_LAST", "default scheduler"] {
        assert!(plan.out.contains(words), "{words:?} is not in: {}", plan.out);
    }
    let json: serde_json::Value = serde_json::from_str(&cli(&["--json", "plan", ON]).out).unwrap();
    assert!(json["reattach"].as_str().unwrap().contains("SCX_OPS_ENQ_LAST"));
    let json: serde_json::Value = serde_json::from_str(&cli(&["--json", "plan", OFF]).out).unwrap();
    assert!(json["reattach"].is_null());
    let refused = cli(&["swap", ON]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    for words in ["SCX_OPS_ENQ_LAST", "--allow-reattach", "default scheduler"] {
        assert!(refused.err.contains(words), "{words:?} is not in: {}", refused.err);
    }
    assert_eq!((status().generation, status().slots.len()), (1, 1));
    // Allowed and not needed: in place.
    assert!(!report(&["swap", "--allow-reattach", OFF]).reattached);
    watch.finish();
    assert_eq!(lasts(), 0, "the host has no SCX_OPS_ENQ_LAST");

    let (mut asleep, mut ran) = (0, 0);
    let mut check = |known: &mut Knowledge, args: &[&str]| {
        // Whoever sleeps through it must be found to the byte: half of the load does, however long it takes.
        known.groups[1].freeze(true);
        let (before, seq) = (known.now(), sysfs::enable_seq());
        let done = report(args);
        assert!(done.reattached && done.timings.gap_ns >= done.timings.attach_ns);
        assert_eq!(sysfs::enable_seq(), seq + 1);
        let (a, r) = known.is_kept(&before);
        known.groups[1].freeze(false);
        known.nobody_is_in_the_fair_class();
        known.audit(true);
        (asleep, ran) = (asleep + a, ran + r);
        done
    };
    // Twice; once on older kernels.
    for _ in 0..rounds(4) / 2 {
        let there = check(&mut known, &["swap", "--allow-reattach", ON]);
        assert_eq!(there.to.split(' ').next(), Some("last_on"));
        let before = lasts();
        wait_until("the kernel enqueues the last task of a CPU", || lasts() > before);
        // A policy with the same flags goes in in place, one without does not.
        let watch = EnabledWatch::start();
        assert!(!report(&["swap", ON]).reattached);
        assert!(!report(&["rollback"]).reattached);
        let refused = cli(&["swap", OFF]);
        assert_eq!(refused.code, 4, "{}", refused.err);
        assert!(refused.err.contains("the host has SCX_OPS_ENQ_LAST"), "{}", refused.err);
        watch.finish();

        let back = check(&mut known, &["swap", "--allow-reattach", OFF]);
        assert_eq!(back.to.split(' ').next(), Some("last_off"));
        let (still, generation) = (lasts(), status().generation);
        let refused = cli(&["rollback"]);
        assert_eq!(refused.code, 4, "{}", refused.err);
        assert!(refused.err.contains("--allow-reattach"), "{}", refused.err);
        assert_eq!((status().generation, status().pending), (generation, None));
        let forth = check(&mut known, &["rollback", "--allow-reattach"]);
        assert_eq!(forth.to.split(' ').next(), Some("last_on"));
        assert!(lasts() >= still);
        check(&mut known, &["rollback", "--allow-reattach"]);
    }
    println!("records compared: {asleep} of tasks asleep, {ran} of tasks that ran");
    assert!(asleep > 1000 && ran > 100, "the test shows too little");
    let progress = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&progress).is_empty());
    load.stop().unwrap();
    fresh();
}

#[test]
fn queues_of_all_loaded_policies_are_there_after_a_reattach() {
    fresh();
    let load = load(200);
    report(&["run", "/bin/plain"]);
    report(&["swap", OFF]);
    report(&["swap", "--allow-reattach", ON]);
    report(&["swap", "--allow-reattach", "/bin/scx_fair_v2"]);
    // Back to each in place: it finds its queue. A dispatch from one that is not there would eject the host.
    let watch = EnabledWatch::start();
    for binary in ["/bin/plain", OFF, "/bin/plain"] {
        report(&["swap", binary]);
        report(&["rollback"]);
        report(&["rollback"]);
        advances(&load);
    }
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// A setting of the kernel's, given back when dropped.
struct Setting(&'static str, String);

impl Setting {
    fn set(path: &'static str, value: &str) -> Setting {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value).unwrap();
        Setting(path, before)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.0, &self.1);
    }
}

#[test]
fn a_reattach_for_which_the_kernel_has_no_bandwidth_is_refused_before_the_detach() {
    fresh();
    let swap: &[&str] = &["swap", "--allow-reattach", ON];
    let dry: &[&str] = &["swap", "--dry-run", "--allow-reattach", ON];
    report(&["run", OFF]);
    let (attached, generation) = (sysfs::enable_seq(), status().generation);
    let reserves = requirements::check_bandwidth().unwrap().is_some_and(|demands| !demands.is_empty());
    // Room for one of the two servers of each CPU, and not for both, as there must be while a scheduler is attached.
    let little = Setting::set("/proc/sys/kernel/sched_rt_runtime_us", "80000");
    if reserves {
        let doctor = cli(&["doctor"]);
        assert_eq!(doctor.code, 1, "{}", doctor.out);
        assert!(doctor.out.contains("blocks   bandwidth"), "{}", doctor.out);
        for args in [dry, swap] {
            let ran = cli(args);
            assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.out, ran.err);
            for words in ["EBUSY", "8.0 %", "sched_rt_runtime_us=950000"] {
                assert!(ran.err.contains(words), "{args:?}: {words} is not in: {}", ran.err);
            }
        }
        assert_eq!((sysfs::enable_seq(), status().generation), (attached, generation), "it runs on");
        assert_eq!(sysfs::state(), "enabled");
        // What comes back to the kernel's scheduler is not tried either, and a start is not.
        fs::write("/proc/sysrq-trigger", "S").unwrap();
        wait_until("the kernel took it off", || sysfs::state() == "disabled");
        let recover = cli(&["recover"]);
        assert!(recover.code == 1 && recover.err.contains("sched_rt_runtime_us"), "{recover:?}");
        fresh();
        for args in [["run", OFF].as_slice(), &["run", "--dry-run", OFF]] {
            let run = cli(args);
            assert!(run.code == 1 && run.err.contains("sched_rt_runtime_us"), "{args:?}: {run:?}");
        }
        assert_eq!(sysfs::enable_seq(), attached, "nothing was attached");
        drop(little);
        report(&["run", OFF]);
    }
    // With the limit of before, or on a kernel that reserves nothing for a scheduler.
    let ran = cli(dry);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    report(swap);
    assert_eq!(sysfs::enable_seq(), attached + if reserves { 2 } else { 1 });
    fresh();
}

#[test]
fn a_reattach_that_the_kernel_refuses_puts_the_old_one_back() {
    fresh();
    let load = load(300);
    report(&["run", OFF]);
    let mut known = Knowledge::new(vec![Cgroup::root()]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
    let held = objects();
    for _ in 0..3 {
        let before = known.now();
        let failed = cli(&["swap", "--allow-reattach", "/bin/bad_enable"]);
        assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
        for words in ["init_task", "attached again"] {
            assert!(failed.err.contains(words), "{words:?} is not in: {}", failed.err);
        }
        let now = status();
        assert_eq!(
            (now.state.as_str(), now.generation, now.pending, now.slots.len()),
            ("enabled", 1, None, 1)
        );
        known.is_kept(&before);
        known.nobody_is_in_the_fair_class();
        known.audit(false);
    }
    // It goes on as if nothing had been.
    report(&["swap", "--allow-reattach", ON]);
    report(&["rollback", "--allow-reattach"]);
    known.audit(false);
    advances(&load);
    wait_until("nothing piled up", || objects().links <= held.links && objects().pins == held.pins);
    load.stop().unwrap();
    fresh();
}

/// Kill `binary --allow-reattach` at moments spread over its length, every other one over the time from the detach on;
/// the next command must bring order.
fn kills(
    all: u32,
    known: &mut Knowledge,
    mut prepare: impl FnMut(),
    next: impl Fn(u32) -> Vec<&'static str>,
) {
    prepare();
    let begin = Instant::now();
    report(&["swap", "--allow-reattach", ON]);
    let length = begin.elapsed();
    let gap = Duration::from_nanos(report(&["swap", "--allow-reattach", OFF]).timings.gap_ns);
    let (mut old, mut new, mut none) = (0, 0, 0);
    let kills = rounds(all);
    for n in 0..kills {
        let before = known.now();
        let binary = if status().slots.iter().any(|s| s.active && s.policy == "last_on") { OFF } else { ON };
        prepare();
        let mut swap = Command::new(binary);
        let swap = swap.arg("--allow-reattach").stdin(Stdio::null()).stdout(Stdio::null());
        let mut swap = swap.spawn().unwrap();
        if n % 2 == 0 {
            std::thread::sleep(length * n / kills + Duration::from_micros(u64::from(n) * 131 % 1000));
        } else {
            while sysfs::state() == "enabled" && swap.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(50));
            }
            std::thread::sleep(gap * n / kills);
        }
        swap.kill().unwrap();
        swap.wait().unwrap();
        wait_until("the kernel is done", || ["enabled", "disabled"].contains(&sysfs::state().as_str()));
        let off = sysfs::state() == "disabled";
        let found = cli(&["status"]);

        let next = next(n);
        let repaired = cli(&next);
        assert_eq!(repaired.code, 0, "{next:?} after kill {n}: {}{}", repaired.out, repaired.err);
        match (off, repaired.out.contains(&format!("(was {}", binary.trim_start_matches("/bin/")))) {
            (true, _) => {
                assert_eq!(found.code, 5, "{}", found.err);
                none += 1;
            }
            (false, true) => new += 1,
            (false, false) => old += 1,
        }
        let now = status();
        assert_eq!((now.state.as_str(), now.pending), ("enabled", None));
        let seen = host();
        assert_eq!(seen.data.nr_orphans(), 0);
        known.is_kept(&before);
        known.nobody_is_in_the_fair_class();
        known.audit(false);
    }
    println!("killed while the old one ran: {old}, while none did: {none}, while the new one did: {new}");
    assert!(old > 0 && new + none > 0, "the kills were not spread");
}

#[test]
fn a_killed_reattach_is_finished_or_undone_by_the_next_command() {
    fresh();
    let load = load(300);
    report(&["run", OFF]);
    let mut known = Knowledge::new(vec![Cgroup::root()]);
    // A rollback needs somewhere to go in any case.
    report(&["swap", OFF]);
    kills(
        12,
        &mut known,
        || {},
        |n| match n % 3 {
            0 => vec!["swap", "--allow-reattach", OFF],
            1 => vec!["rollback", "--allow-reattach"],
            _ => vec!["swap", "--allow-reattach", ON],
        },
    );
    advances(&load);
    load.stop().unwrap();
    fresh();
}

/// Take this thread out of the scheduler under test, or put it back.
fn realtime(yes: bool) {
    let (policy, priority) = if yes { (libc::SCHED_FIFO, 1) } else { (libc::SCHED_OTHER, 0) };
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 names the calling thread, and `param` outlives the call.
    assert_eq!(unsafe { libc::sched_setscheduler(0, policy, &param) }, 0);
}

/// Start `binary --allow-reattach` and stop its process in the detach: it goes no further when that is done.
fn stopped_in_the_detach(binary: &str) -> Child {
    let mut swap = Command::new(binary);
    let swap = swap.arg("--allow-reattach").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut swap = swap.spawn().unwrap();
    // The kernel walks over all tasks, which takes it a while. Whoever is to see that must not be one of them.
    realtime(true);
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline && sysfs::state() == "enabled" && swap.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(50));
    }
    kill(swap.id() as i32, libc::SIGSTOP);
    realtime(false);
    wait_until("it is detached", || sysfs::state() == "disabled");
    swap
}

#[test]
fn a_reattach_that_is_killed_or_robbed_while_nothing_is_attached_keeps_the_records() {
    fresh();
    let load = load(300);
    report(&["run", OFF]);
    report(&["swap", OFF]);
    let mut known = Knowledge::new(vec![Cgroup::root()]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());

    // Killed: nothing is attached, and the next command attaches what ran.
    for next in [["rollback"].as_slice(), &["swap", OFF], &["run", OFF], &["swap", "--allow-reattach", ON]] {
        let before = known.now();
        let mut swap = stopped_in_the_detach(ON);
        swap.kill().unwrap();
        swap.wait().unwrap();
        let off = cli(&["status"]);
        assert_eq!(off.code, 5, "{}{}", off.out, off.err);
        for words in ["cut off", "state is kept"] {
            assert!(off.err.contains(words), "{words:?} is not in: {}", off.err);
        }
        assert_eq!(cli(&["plan", OFF]).code, 5);
        report(next);
        let now = status();
        assert_eq!((now.state.as_str(), now.pending), ("enabled", None));
        known.is_kept(&before);
        known.nobody_is_in_the_fair_class();
        known.audit(false);
    }

    // Robbed: another scheduler is attached in between. Neither the new one nor the old one can be.
    let before = known.now();
    let mut other = Direct::load(&Policy::from_binary(Path::new("/bin/plain")).unwrap()).unwrap();
    let swap = stopped_in_the_detach(OFF);
    other.attach().unwrap();
    kill(swap.id() as i32, libc::SIGCONT);
    let failed = swap.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(5), "{said}");
    for words in ["another sched_ext scheduler is running", "cannot be attached again", "state is kept"] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(sysfs::ops().starts_with("plain"), "{} was pushed out", sysfs::ops());
    assert_eq!(cli(&["run", OFF]).code, 1);
    other.detach().unwrap();
    assert_eq!(cli(&["status"]).code, 5);
    assert!(report(&["run", OFF]).reattached);
    known.is_kept(&before);
    known.nobody_is_in_the_fair_class();
    known.audit(false);
    advances(&load);
    load.stop().unwrap();
    fresh();
}

#[test]
fn an_ejected_host_is_reattached_with_its_records() {
    fresh();
    let load = load(300);
    report(&["run", OFF]);
    report(&["swap", OFF]);
    let mut known = Knowledge::new(vec![Cgroup::root()]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
    for args in [["run", ON].as_slice(), &["rollback"], &["swap", ON], &["run", OFF]] {
        let before = known.now();
        // SysRq-S: the kernel's own way to get rid of a scheduler.
        std::fs::write("/proc/sysrq-trigger", "S").unwrap();
        wait_until("the kernel took it off", || sysfs::state() == "disabled");
        let off = cli(&["status"]);
        assert_eq!(off.code, 5, "{}{}", off.out, off.err);
        let again = report(args);
        assert!(again.reattached);
        let now = status();
        assert_eq!((now.state.as_str(), now.pending), ("enabled", None));
        known.is_kept(&before);
        known.nobody_is_in_the_fair_class();
        known.audit(false);
    }
    advances(&load);
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_host_of_another_version_is_replaced_by_a_reattach() {
    fresh();
    let load = sleepy_load(300, 20.0);
    report(&["run", OFF]);
    let mut known = Knowledge::new(vec![Cgroup::root()]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
    let held = objects();

    let before = known.now();
    host().data.set_abi(OTHER_VERSION);
    let watch = EnabledWatch::start();
    for args in [["swap", ON].as_slice(), &["rollback"], &["rollback", "--allow-reattach"]] {
        let refused = cli(args);
        assert_eq!(refused.code, 4, "{}{}", refused.out, refused.err);
        assert!(refused.err.contains("version 999"), "{}", refused.err);
    }
    let plan = cli(&["plan", OFF]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    assert!(
        plan.out.contains("needs --allow-reattach: the host that runs is of version 999"),
        "{}",
        plan.out
    );
    assert!(plan.out.contains("carried    task.turns"), "{}", plan.out);
    watch.finish();

    let done = report(&["swap", "--allow-reattach", ON]);
    assert!(done.reattached);
    assert_eq!(done.generation, 2);
    let (asleep, _) = known.is_kept(&before);
    assert!(asleep > 10, "only {asleep} tasks slept");
    known.nobody_is_in_the_fair_class();
    known.audit(false);
    let rollback = cli(&["rollback"]);
    assert_eq!(rollback.code, 1, "{}", rollback.err);
    assert!(rollback.err.contains("nothing to roll back to"), "{}", rollback.err);
    report(&["swap", "--allow-reattach", OFF]);
    report(&["rollback", "--allow-reattach"]);
    known.audit(false);
    wait_until("the old host is gone", || objects().pins == held.pins && objects().links <= held.links);

    // One that cannot be attached: the old host runs on.
    host().data.set_abi(OTHER_VERSION);
    let failed = cli(&["swap", "--allow-reattach", "/bin/bad_enable"]);
    assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
    assert!(failed.err.contains("attached again"), "{}", failed.err);
    assert_eq!(sysfs::state(), "enabled");
    assert_eq!(cli(&["rollback"]).code, 4);
    report(&["swap", "--allow-reattach", OFF]);
    known.nobody_is_in_the_fair_class();
    known.audit(false);
    wait_until("the old processes end", || pids("last_on").is_empty());

    kills(
        6,
        &mut known,
        || host().data.set_abi(OTHER_VERSION),
        |n| vec!["swap", "--allow-reattach", [OFF, ON][n as usize % 2]],
    );
    advances(&load);
    load.stop().unwrap();
    fresh();
}

//! Exactness for tasks that run: after each of many swaps, every record of every task is recomputed from an invariant
//! that the two ledger policies keep (see `tests/policies/src/bpf/ledger.bpf.h`), by a reader that is neither policy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::rounds;
use e2e::wait_until;
use guest::reader::Entry;
use guest::reader::Key;
use guest::reader::Reader;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use state_migrate::Layout;
use state_migrate::Scope;

const A: &str = "/bin/ledger_a";
const B: &str = "/bin/ledger_b";

/// What the ledger's columns hold for one task.
#[derive(Debug)]
struct Ledger {
    turns: u64,
    turns_low: u64,
    seal: u64,
    only_a: Option<i64>,
    only_b: Option<i64>,
    flag: Option<u64>,
    count: Option<u64>,
    marks: Option<Vec<u8>>,
}

impl Ledger {
    fn read(entry: &Entry, layout: &Layout) -> Ledger {
        let bytes = |name: &str| {
            let placed = layout.scopes[&Scope::Task].columns.iter().find(|c| c.name == name);
            placed.map(|p| entry.column(p).to_vec())
        };
        let number =
            |name: &str| bytes(name).map(|b| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte)));
        Ledger {
            turns: number("turns").expect("no column turns"),
            turns_low: number("turns_low").expect("no column turns_low"),
            seal: number("seal").expect("no column seal"),
            only_a: number("only_a").map(|n| i64::from(n as u32)),
            only_b: number("only_b").map(|n| i64::from(n as u32 as i32)),
            flag: number("flag"),
            count: bytes("inner").map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            marks: bytes("marks"),
        }
    }

    /// What is wrong with it.
    fn fault(&self, pid: u32) -> Option<String> {
        let seal = (u64::from(pid) << 40 | self.turns).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let under_a = self.only_a.map_or(0, |n| n - 7);
        let under_b = self.only_b.map_or(0, |n| -5 - n);
        let faults = [
            (self.turns > 0 && self.seal != seal, "the seal does not fit"),
            (self.turns == 0 && self.seal != 0, "a seal without a turn"),
            (self.turns & 0xffff != self.turns_low, "turns_low does not fit"),
            (under_a + under_b != self.turns as i64, "turns under a and under b do not add up"),
            (self.flag.is_some_and(|f| f != 1), "flag is not its default"),
            (self.count.is_some_and(|c| c as i64 != under_b), "the nested count does not fit"),
            (self.marks.as_ref().is_some_and(|m| m[..] != [0xaa; 5]), "marks are not their default"),
        ];
        let wrong: Vec<_> = faults.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        (!wrong.is_empty()).then(|| format!("pid {pid}: {}: {self:?}", wrong.join(", ")))
    }
}

/// Check every task; turns by task, to see next time that none went back.
fn audit(reader: &mut Reader, before: &HashMap<Key, u64>) -> HashMap<Key, u64> {
    let mut faults = Vec::new();
    // A task that runs while it is read may be seen half-way through a turn: such a one is read again.
    for _ in 0..5 {
        let layout = Host::running(&Pins::open().unwrap()).unwrap().registry.layout;
        let snapshot = reader.snapshot().unwrap();
        let tasks: Vec<_> =
            snapshot.entries.iter().filter(|e| e.has_record() && !e.is_idle_thread()).collect();
        let ledgers: Vec<_> = tasks.iter().map(|e| (e.key(), Ledger::read(e, &layout))).collect();
        let turns: HashMap<_, _> = ledgers.iter().map(|(key, l)| (*key, l.turns)).collect();
        faults = ledgers.iter().filter_map(|(key, l)| l.fault(key.pid)).collect();
        faults.extend(turns.iter().filter_map(|(key, now)| {
            let then = before.get(key)?;
            (now < then).then(|| format!("pid {}: {then} turns became {now}", key.pid))
        }));
        if faults.is_empty() {
            assert!(turns.len() >= 400, "only {} tasks have records", turns.len());
            return turns;
        }
    }
    panic!(
        "{} faults, the first: {}",
        faults.len(),
        faults.iter().take(5).cloned().collect::<Vec<_>>().join("; ")
    );
}

/// A column of one record of a scope, read by user space through the pinned map.
fn column(host: &Host, scope: Scope, key: u32, name: &str) -> Option<Vec<u8>> {
    let placed = host.registry.layout.scopes[&scope].columns.iter().find(|c| c.name == name)?;
    let record = host.records(scope).unwrap().lookup(&key.to_ne_bytes(), MapFlags::ANY).unwrap()?;
    Some(record[placed.offset as usize..][..placed.ty.size() as usize].to_vec())
}

fn count(host: &Host, scope: Scope, key: u32, name: &str) -> u64 {
    let bytes = column(host, scope, key, name).unwrap_or_else(|| vec![0; 8]);
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// The other scopes: each turn counted once on its CPU, once in its cgroup, once in all; the marks of version b at
/// their defaults.
fn audit_sums(groups: &[Cgroup]) {
    let host = Host::running(&Pins::open().unwrap()).unwrap();
    let cpus = libbpf_rs::num_possible_cpus().unwrap() as u32;
    let all = || count(&host, Scope::Global, 0, "all_turns");
    let before = all();
    let by_cpu: u64 = (0..cpus).map(|cpu| count(&host, Scope::Cpu, cpu, "cpu_turns")).sum();
    let by_group: u64 = groups.iter().map(|g| count(&host, Scope::Cgroup, g.key(), "cgroup_turns")).sum();
    let after = all();
    // Each CPU may be between its own count and the one in all.
    for (what, sum) in [("CPUs", by_cpu), ("cgroups", by_group)] {
        assert!(
            sum >= before && sum <= after + u64::from(cpus),
            "{sum} turns on {what}, {before} to {after} in all"
        );
    }
    for cpu in 0..cpus {
        let mark = column(&host, Scope::Cpu, cpu, "cpu_mark");
        assert!(mark.is_none_or(|m| m == [3, 0, 0, 0]));
    }
    for group in groups {
        assert!(column(&host, Scope::Cgroup, group.key(), "cgroup_mark").is_none_or(|m| m == [9]));
    }
    if let Some(marks) = column(&host, Scope::Global, 0, "global_marks") {
        assert!(marks.chunks(2).all(|m| m == [11, 0]), "{marks:?}");
    }
}

#[test]
fn no_write_of_any_task_is_lost_or_repeated_over_many_swaps() {
    fresh();
    let load = load(400);
    // Every cgroup that has tasks, so that the sum over them is the whole.
    let groups = [Cgroup::root(), Cgroup::new("ledger-x"), Cgroup::new("ledger-y")];
    let workers: Vec<_> = load.pids().collect();
    report(&["run", A]);
    let watch = EnabledWatch::start();
    let mut reader = Reader::open(&Host::running(&Pins::open().unwrap()).unwrap()).unwrap();
    let begin = load.progress();
    let mut turns = audit(&mut reader, &HashMap::new());
    let swaps = rounds(40);
    for n in 0..swaps {
        match n % 4 {
            0 => report(&["swap", B]),
            1 | 2 => report(&["rollback"]),
            _ => report(&["swap", A]),
        };
        // Tasks move between cgroups all the while.
        for (i, pid) in workers.iter().enumerate() {
            groups[(n as usize + i) % groups.len()].take(*pid as i32);
        }
        turns = audit(&mut reader, &turns);
        audit_sums(&groups);
        // However fast swaps are: there is to be something that could be lost.
        let enough = u64::from(n + 1) * 10_000 / u64::from(swaps);
        wait_until("much has run", || {
            let host = Host::running(&Pins::open().unwrap()).unwrap();
            count(&host, Scope::Global, 0, "all_turns") > enough
        });
    }
    wait_until("every kind advances", || load.progress().stuck_since(&begin).is_empty());
    watch.finish();
    load.stop().unwrap();
    fresh();
}

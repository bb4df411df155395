//! What a policy knows, to a file and back: into the same version, into another one, and never a broken one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::status;
use e2e::wait_until;
use guest::reader::Entry;
use guest::reader::Reader;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::report::Restored;
use state_migrate::Layout;
use state_migrate::Scope;
use state_migrate::Snapshot;
use state_migrate::snapshot::BootId;
use state_migrate::snapshot::CgroupPath;
use state_migrate::snapshot::NoKey;
use state_migrate::snapshot::Table;
use state_migrate::snapshot::TaskKey;

const FILE: &str = "/tmp/knows";

fn host() -> Host {
    Host::running(&Pins::open().unwrap()).unwrap()
}

fn number(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    let raw = bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    (raw << unused) as i64 >> unused
}

/// A column of a record of another scope than the task's.
fn column(scope: Scope, key: u32, name: &str) -> i64 {
    let host = host();
    let placed = host.registry.layout.scopes[&scope].columns.iter().find(|c| c.name == name).unwrap().clone();
    let record = host.records(scope).unwrap().lookup(&key.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    number(&record[placed.offset as usize..][..placed.ty.size() as usize])
}

fn of_task<'e>(entry: &'e Entry, layout: &Layout, name: &str) -> &'e [u8] {
    let placed = layout.scopes[&Scope::Task].columns.iter().find(|c| c.name == name).unwrap();
    entry.column(placed)
}

fn save(args: &[&str]) {
    let saved = cli(&[&["snapshot", "save"], args].concat());
    assert_eq!(saved.code, 0, "{}{}", saved.out, saved.err);
}

fn restored(report: &Restored, scope: &str) -> (u64, u64) {
    let found = report.scopes.iter().find(|s| s.scope == scope).unwrap();
    (found.restored, found.gone)
}

fn fate(restored: &Restored, scope: Scope, column: &str) -> String {
    let row = restored.columns.iter().find(|r| r.scope == scope && r.column == column);
    row.unwrap_or_else(|| panic!("nothing is said of {scope}.{column}")).fate.clone()
}

/// Tasks of the snapshot that are still there hold what `is` says of the saved and the present value. Gives how many.
fn tasks_hold(snapshot: &Snapshot, is: impl Fn(&TaskKey, &Entry, &Layout)) -> usize {
    let host = host();
    let entries = Reader::open(&host).unwrap().snapshot().unwrap().entries;
    let mut checked = 0;
    for entry in entries.iter().filter(|e| e.has_record() && !e.is_idle_thread()) {
        let key = TaskKey { pid: entry.key().pid, start_ns: entry.key().start_time };
        if snapshot.tasks.keys().binary_search(&key).is_ok() {
            is(&key, entry, &host.registry.layout);
            checked += 1;
        }
    }
    checked
}

#[test]
fn a_snapshot_carries_every_scope_over_a_stop() {
    fresh();
    let load = load(200);
    // Without the controller the kernel counts all tasks as the root's.
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu").unwrap();
    let idle = Cgroup::new("snapshot-idle");
    load.pids().step_by(3).for_each(|pid| idle.take(pid as i32));
    report(&["run", "/bin/ledger_a"]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
    wait_until("there is much to know", || column(Scope::Global, 0, "all_turns") > 1000);
    // From here on nobody adds to its count.
    load.pids().for_each(|pid| Cgroup::root().take(pid as i32));
    let watch = EnabledWatch::start();
    save(&[FILE]);
    watch.finish();
    assert_eq!(fs::metadata(FILE).unwrap().permissions().mode() & 0o777, 0o600);

    let snapshot = Snapshot::read(FILE).unwrap();
    assert_eq!((snapshot.meta.policy.as_str(), snapshot.meta.version.is_empty()), ("ledger_a", false));
    assert!(snapshot.tasks.keys().len() >= 200, "{} tasks", snapshot.tasks.keys().len());
    let path = CgroupPath::new("/snapshot-idle").unwrap();
    let turns = number(snapshot.cgroups.value(&path, "cgroup_turns").unwrap());
    assert!(turns > 0);
    let all = number(snapshot.global.value(&NoKey, "all_turns").unwrap());
    assert!(all > 1000, "{all}: fewer than before");

    assert_eq!(cli(&["stop"]).code, 0);
    let started = report(&["run", "--restore", FILE, "/bin/ledger_a"]);
    let back = started.restored.expect("the report says what was restored");
    assert_eq!(back.saved_by.split(' ').next(), Some("ledger_a"));
    assert!(!back.other_boot);
    let (tasks, gone) = restored(&back, "task");
    assert_eq!((tasks + gone) as usize, snapshot.tasks.keys().len());
    assert!(tasks > 100, "{tasks} tasks of {}", tasks + gone);
    assert_eq!(restored(&back, "cpu").0 as usize, libbpf_rs::num_possible_cpus().unwrap());
    assert_eq!(restored(&back, "global"), (1, 0));
    for (scope, name) in [
        (Scope::Task, "turns"),
        (Scope::Cgroup, "cgroup_turns"),
        (Scope::Cpu, "cpu_turns"),
        (Scope::Global, "all_turns"),
    ] {
        assert_eq!(fate(&back, scope, name), "carried");
    }

    assert_eq!(column(Scope::Cgroup, idle.key(), "cgroup_turns"), turns);
    assert!(column(Scope::Global, 0, "all_turns") >= all);
    for cpu in 0..libbpf_rs::num_possible_cpus().unwrap() as u32 {
        assert!(
            column(Scope::Cpu, cpu, "cpu_turns") >= number(snapshot.cpus.value(&cpu, "cpu_turns").unwrap())
        );
    }
    let checked = tasks_hold(&snapshot, |key, entry, layout| {
        let (was, is) = (snapshot.tasks.value(key, "turns").unwrap(), of_task(entry, layout, "turns"));
        assert!(number(is) >= number(was), "pid {}: {} turns became {}", key.pid, number(was), number(is));
        if was == is {
            assert_eq!(of_task(entry, layout, "seal"), snapshot.tasks.value(key, "seal").unwrap());
        }
    });
    assert!(checked > 100, "{checked} tasks are few");
    load.stop().unwrap();
    drop(idle);
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "-cpu").unwrap();
    fresh();
}

#[test]
fn a_snapshot_goes_into_another_version() {
    fresh();
    let load = load(200);
    report(&["run", "/bin/chain_1"]);
    let begin = load.progress();
    wait_until("tasks have run", || load.progress().stuck_since(&begin).is_empty());
    save(&[FILE]);
    let snapshot = Snapshot::read(FILE).unwrap();
    let was = |key: &TaskKey, name: &str| number(snapshot.tasks.value(key, name).unwrap());
    // Under the later versions nothing but `runs` changes by itself.
    for (binary, twice) in [("/bin/chain_2", false), ("/bin/chain_2", true), ("/bin/chain_3", false)] {
        assert_eq!(cli(&["stop"]).code, 0);
        let back = if twice {
            // Into one that runs already, without it.
            report(&["run", binary]);
            let watch = EnabledWatch::start();
            let ran = cli(&["--json", "snapshot", "restore", FILE]);
            assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
            watch.finish();
            serde_json::from_str(&ran.out).unwrap()
        } else {
            report(&["run", "--restore", FILE, binary]).restored.unwrap()
        };
        let third = binary.ends_with('3');
        assert_eq!(fate(&back, Scope::Task, if third { "time_ns" } else { "small" }), "converted");
        if third {
            assert_eq!(fate(&back, Scope::Cpu, "mark"), "defaulted");
        }
        let checked = tasks_hold(&snapshot, |key, entry, layout| {
            let is = |name: &str| number(of_task(entry, layout, name));
            assert_eq!(is("small"), was(key, "small"), "pid {}", key.pid);
            assert_eq!(is("wide") as u64, u64::from(was(key, "wide") as u32));
            assert!(is("runs") >= was(key, "runs"));
            if third {
                assert_eq!(is("time_ns"), was(key, "time_us").wrapping_mul(1000));
                assert_eq!(is("new_name"), was(key, "old_name"));
            } else {
                assert_eq!(is("time_us"), was(key, "time_us"));
                assert_eq!(is("old_name"), was(key, "old_name"));
                assert_eq!(of_task(entry, layout, "inner"), snapshot.tasks.value(key, "inner").unwrap());
                let list = snapshot.tasks.value(key, "list").unwrap();
                let list: Vec<u32> = list.chunks(2).map(|e| number(e) as u16 as u32).chain([9, 9]).collect();
                let now: Vec<u32> =
                    of_task(entry, layout, "list").chunks(4).map(|e| number(e) as u32).collect();
                assert_eq!(now, list, "pid {}", key.pid);
            }
        });
        assert!(checked > 100, "{checked} tasks are few");
    }
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_snapshot_is_shown_to_anybody_and_saved_without_tasks_too() {
    fresh();
    report(&["run", "/bin/ledger_a"]);
    save(&["--no-tasks", FILE]);
    assert!(Snapshot::read(FILE).unwrap().tasks.keys().is_empty());
    save(&[FILE]);
    fs::set_permissions(FILE, fs::Permissions::from_mode(0o644)).unwrap();
    let shown = cli_as_nobody(&["snapshot", "show", FILE]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    for words in ["ledger_a", "turns: u64", "cgroup \"/\"", "all_turns"] {
        assert!(shown.out.contains(words), "{words:?} is not in: {}", shown.out);
    }
    let json: serde_json::Value =
        serde_json::from_str(&cli_as_nobody(&["--json", "snapshot", "show", FILE]).out).unwrap();
    assert_eq!(json["policy"], "ledger_a");
    assert_eq!(json["scopes"][3]["columns"][0]["name"], "all_turns");
    assert_eq!(cli_as_nobody(&["snapshot", "save", "/tmp/mine"]).code, 1, "that needs root");

    // Where there is state, --restore would mix the two.
    let mixed = cli(&["run", "--restore", FILE, "/bin/ledger_a"]);
    assert_eq!(mixed.code, 1, "{}", mixed.err);
    assert_eq!(status().generation, 1);
    fresh();
    assert_eq!(cli(&["snapshot", "save", FILE]).code, 3);
    assert_eq!(cli(&["snapshot", "restore", FILE]).code, 3);
}

#[test]
fn a_snapshot_that_is_damaged_is_refused_and_changes_nothing() {
    fresh();
    report(&["run", "/bin/ledger_a"]);
    save(&[FILE]);
    let whole = fs::read(FILE).unwrap();
    let newer = {
        let mut bytes = whole.clone();
        bytes[8] = 2;
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..24].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let bad = [
        ("cut short", "cut short", whole[..whole.len() / 2].to_vec()),
        ("one bit", "damaged", flipped(whole.len() / 2)),
        ("header", "header is damaged", flipped(12)),
        ("newer", "of version 2.0", newer),
        ("appended", "appended", [&whole[..], b"x"].concat()),
        ("text", "not a snapshot", b"#!/bin/sh\n".to_vec()),
        ("empty", "not a snapshot", Vec::new()),
    ];
    let path = "/tmp/bad-snapshot";
    for (what, says, bytes) in &bad {
        fs::write(path, bytes).unwrap();
        let all = column(Scope::Global, 0, "all_turns");
        for args in [["snapshot", "restore", path], ["snapshot", "show", path]] {
            let refused = cli(&args);
            assert_eq!(refused.code, 6, "{what}: {}{}", refused.out, refused.err);
            assert!(refused.err.contains(says), "{what}: {}", refused.err);
        }
        assert!(column(Scope::Global, 0, "all_turns") >= all);
    }
    assert_eq!(cli(&["snapshot", "restore", "/no/such/file"]).code, 6);
    assert_eq!(cli(&["snapshot", "restore", "/tmp"]).code, 6);
    fresh();
    for (what, says, bytes) in &bad {
        fs::write(path, bytes).unwrap();
        let refused = cli(&["run", "--restore", path, "/bin/ledger_a"]);
        assert_eq!(refused.code, 6, "{what}: {}{}", refused.out, refused.err);
        assert!(refused.err.contains(says), "{what}: {}", refused.err);
        assert_eq!((sysfs::state().as_str(), e2e::pins()), ("disabled", 0), "{what}");
    }
    fresh();
}

#[test]
fn a_snapshot_for_which_there_is_no_room_leaves_the_old_one_whole() {
    fresh();
    let load = load(300);
    report(&["run", "/bin/ledger_a"]);
    let folder = Path::new("/tmp/tiny");
    fs::create_dir_all(folder).unwrap();
    let mount = |target: &Path| {
        let target = std::ffi::CString::new(target.to_str().unwrap()).unwrap();
        // SAFETY: all strings are NUL-terminated and outlive the call.
        unsafe {
            libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=12k".as_ptr().cast())
        }
    };
    assert_eq!(mount(folder), 0);
    let file = folder.join("knows");
    let file = file.to_str().unwrap();
    save(&["--no-tasks", file]);
    let before = fs::read(file).unwrap();
    let full = cli(&["snapshot", "save", file]);
    assert_eq!(full.code, 6, "{}{}", full.out, full.err);
    assert!(full.err.contains("No space left"), "{}", full.err);
    assert_eq!(fs::read(file).unwrap(), before);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is left beside it");
    Snapshot::read(file).unwrap();
    // SAFETY: the string is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::umount(c"/tmp/tiny".as_ptr()) }, 0);
    load.stop().unwrap();
    fresh();
}

/// What a boot that had been up for an hour longer than this one would have saved of a cgroup's time stamp.
fn as_of_another_boot(mut snapshot: Snapshot, column: &str) -> Snapshot {
    const HOUR_NS: i64 = 3_600_000_000_000;
    snapshot.meta.boot_id = BootId([7; 16]);
    let columns = snapshot.cgroups.columns().to_vec();
    let sizes = columns.iter().map(|c| (c.name.as_str(), c.ty.size() as usize));
    let at = sizes.take_while(|(name, _)| *name != column).map(|(_, size)| size).sum::<usize>();
    let rows: Vec<_> = snapshot
        .cgroups
        .rows()
        .map(|(key, values)| {
            let mut values = values.to_vec();
            let stamp = number(&values[at..at + 8]) + HOUR_NS;
            values[at..at + 8].copy_from_slice(&stamp.to_ne_bytes());
            (key.clone(), values)
        })
        .collect();
    snapshot.cgroups = Table::new(columns, rows).unwrap();
    snapshot
}

#[test]
fn a_time_of_another_boot_is_not_restored() {
    const BEGAN: &str = "quota_began_ns";
    fresh();
    Cgroup::root().share_cpu();
    let group = Cgroup::new("snapshot-quota");
    group.set("cpu.max", "20000 100000");
    let hog = Busy::start(&group);
    report(&["run", "/bin/scx_quota"]);
    wait_until("the limit holds", || column(Scope::Cgroup, group.key(), "quota_throttlings") > 2);
    save(&["--no-tasks", FILE]);
    let snapshot = Snapshot::read(FILE).unwrap();
    let path = CgroupPath::new("/snapshot-quota").unwrap();
    let began = number(snapshot.cgroups.value(&path, BEGAN).unwrap());
    let other = "/tmp/knows-of-another-boot";
    as_of_another_boot(snapshot, BEGAN).write(Path::new(other)).unwrap();

    // In the same boot it is the same clock.
    assert_eq!(cli(&["stop"]).code, 0);
    let back = report(&["run", "--restore", FILE, "/bin/scx_quota"]).restored.unwrap();
    assert_eq!(fate(&back, Scope::Cgroup, BEGAN), "carried");
    let is = column(Scope::Cgroup, group.key(), BEGAN);
    assert!(is >= began && (is - began) % 100_000_000 == 0, "{is} is not {began} and whole periods");

    assert_eq!(cli(&["stop"]).code, 0);
    let back = report(&["run", "--restore", other, "/bin/scx_quota"]).restored.unwrap();
    assert!(back.other_boot);
    assert_eq!(fate(&back, Scope::Cgroup, BEGAN), "skipped");
    assert_eq!(fate(&back, Scope::Cgroup, "quota_used_ns"), "carried");
    // With a period that begins in an hour it would wait for an hour.
    let before = group.usage_us();
    wait_until("the cgroup has its quota of several periods", || group.usage_us() > before + 100_000);
    // Into what runs as well: that has a time of its own.
    let ran = cli(&["--json", "snapshot", "restore", other]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(fate(&serde_json::from_str(&ran.out).unwrap(), Scope::Cgroup, BEGAN), "skipped");
    let before = group.usage_us();
    wait_until("it goes on", || group.usage_us() > before + 100_000);
    drop(hog);
    fresh();
}

#[test]
fn what_is_true_only_now_is_neither_saved_nor_restored() {
    fresh();
    Cgroup::root().share_cpu();
    let group = Cgroup::new("snapshot-busy");
    // Who wants to run, in the lower half, and the run of the policy that this is of in the upper.
    let busy = || column(Scope::Cgroup, group.key(), "share_busy") as u64;
    let hogs: Vec<_> = (0..3).map(|_| Busy::start(&group)).collect();
    report(&["run", "/bin/scx_fair"]);
    wait_until("all three count", || busy() as u32 == 300);
    save(&[FILE]);
    let snapshot = Snapshot::read(FILE).unwrap();
    let (of_tasks, of_cgroups) = (snapshot.tasks.columns(), snapshot.cgroups.columns());
    for name in ["share_gen", "share_weight", "share", "last_run_at_ns", "last_run_gen"] {
        assert!(of_tasks.iter().all(|c| c.name != name), "{name} is saved");
    }
    assert!(of_tasks.iter().any(|c| c.name == "vtime_lag_ns"), "nothing is saved");
    assert!(of_cgroups.is_empty(), "{of_cgroups:?}");

    // A reattach that is undone: the generation is the same again, and what was counted before is void.
    let (generation, run) = (status().generation, busy() >> 32);
    let failed = cli(&["swap", "--allow-reattach", "/bin/bad_enable"]);
    assert_ne!(failed.code, 0, "{}", failed.out);
    assert_eq!(status().generation, generation);
    wait_until("all three count again", || busy() >> 32 != run && busy() as u32 == 300);

    drop(hogs);
    wait_until("nobody counts", || busy() as u32 == 0);
    let ran = cli(&["--json", "snapshot", "restore", FILE]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let back: Restored = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(fate(&back, Scope::Cgroup, "share_busy"), "skipped");
    assert_eq!(busy() as u32, 0, "those that are gone count");
    fresh();
}

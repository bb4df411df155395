//! A swap that is killed with SIGKILL, at moments spread over all of its length: the old or the new policy runs, never
//! a mix, and the next command finishes or cleans up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::fs::File;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use e2e::EnabledWatch;
use e2e::PINS;
use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::objects;
use e2e::pids;
use e2e::report;
use e2e::rounds;
use e2e::status;
use e2e::wait_until;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::abi::DsqGroup;
use scx_upgrade_engine::host::abi::HostData;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::Generation;
use scx_upgrade_engine::host::registry::Kind;
use scx_upgrade_engine::host::registry::Pending;
use scx_upgrade_engine::host::registry::QueueInfo;
use state_migrate::schema::QueueSpan;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const PLAIN: &str = "/bin/plain";
const KILLS: u32 = 40;

#[test]
fn a_killed_swap_is_finished_or_undone_by_the_next_command() {
    fresh();
    let load = load(300);
    report(&["run", V1]);
    // Fill every slot, so that each further swap evicts; and measure how long one takes here and now.
    for binary in [V2, PLAIN, V1] {
        report(&["swap", binary]);
    }
    let begin = Instant::now();
    report(&["swap", V2]);
    let length = begin.elapsed();
    wait_until("superseded processes end", || pids("scx_fair_v1").len() + pids("plain").len() == 0);
    let held = objects();
    let watch = EnabledWatch::start();

    let (mut before_commit, mut after_commit, mut cut_off) = (0, 0, 0);
    let kills = rounds(KILLS);
    for n in 0..kills {
        let binary = [PLAIN, V1, V2][n as usize % 3];
        let generation = status().generation;
        let mut swap = Command::new(binary).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(length * n / kills + Duration::from_micros(u64::from(n) * 131 % 1000));
        swap.kill().unwrap();
        swap.wait().unwrap();

        let now = status();
        assert_eq!(now.state, "enabled");
        match now.generation - generation {
            0 => before_commit += 1,
            1 => after_commit += 1,
            n => panic!("{n} commits by one swap"),
        }
        if now.pending.is_some() {
            cut_off += 1;
            // With nobody to finish it, tasks on the old policy's queue must run all the same.
            wait_until("nobody is left waiting", || load.progress().overdue_ns() < 2_000_000_000);
        }
        let active: Vec<_> = now.slots.iter().filter(|s| s.active).collect();
        assert_eq!(active.len(), 1, "exactly one policy runs");

        // The next command repairs, whichever it is.
        let next = if n % 2 == 0 { cli(&["rollback"]) } else { cli(&["swap", V2]) };
        assert_eq!(next.code, 0, "{}{}", next.out, next.err);
        assert_eq!(status().pending, None);
    }
    println!("killed before the commit: {before_commit}, after it: {after_commit}, found cut off: {cut_off}");

    let progress = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&progress).is_empty());
    watch.finish();
    // The same four kinds of policies as before may now stand in other slots: bring the slots back to what they held.
    for binary in [V1, V2, PLAIN, V1, V2] {
        report(&["swap", binary]);
    }
    wait_until("superseded processes end", || pids("scx_fair_v1").len() + pids("plain").len() == 0);
    wait_until("nothing piled up", || objects() <= held && objects().pins == held.pins);
    load.stop().unwrap();
    fresh();
}

/// What a rollback leaves that is killed between its adopting the running policy's queues as orphans and its commit: the
/// two are a microsecond apart, so the state is made here as the two writes before the kill make it.
#[test]
fn a_rollback_killed_before_its_commit_gives_the_queues_back() {
    fresh();
    let load = load(200);
    report(&["run", V1]);
    report(&["swap", PLAIN]);
    let pins = Pins::open().unwrap();
    let registry_map = pins.map("scxu_registry").unwrap();
    let shared = pins.map(".data.scxu_host").unwrap();
    let watch = EnabledWatch::start();
    for next in [["swap", "/bin/bad_verify"].as_slice(), &["swap", V2], &["rollback"]] {
        let host = Host::running(&pins).unwrap();
        let active = host.data.active();
        let mut registry = host.registry.clone();
        let target = registry.rollback_target(active.slot).unwrap().clone();
        let named = u32::from(target.slot);
        let orphans: Vec<&QueueInfo> = registry.queues.iter().filter(|q| !q.slots.contains(&named)).collect();
        assert!(!orphans.is_empty(), "the two name different queues");
        assert!(orphans.iter().all(|q| q.span == QueueSpan::One), "each has one member");
        let generation = Generation { number: active.generation + 1, kind: Kind::Rollback, ..target };
        let families = orphans.iter().map(|q| DsqGroup { base: q.id, members: 1, per_cgroup: 0 });
        let families: Vec<_> = families.collect();
        registry.pending =
            Some(Pending { generation, epoch: active.epoch, sweeper: None, hold: None, reattach: None });
        registry.save(&registry_map).unwrap();
        let key = 0u32.to_ne_bytes();
        let mut bytes = shared.lookup(&key, MapFlags::ANY).unwrap().unwrap();
        for (i, family) in families.iter().enumerate() {
            let at = offset_of!(HostData, orphans) + i * size_of::<DsqGroup>();
            bytes[at..at + 8].copy_from_slice(&family.base.to_ne_bytes());
            let at = at + offset_of!(DsqGroup, members);
            bytes[at..at + 4].copy_from_slice(&family.members.to_ne_bytes());
            let at = at + 4;
            bytes[at..at + 4].copy_from_slice(&family.per_cgroup.to_ne_bytes());
        }
        for field in [offset_of!(HostData, nr_orphans), offset_of!(HostData, orphan_members)] {
            bytes[field..field + 4].copy_from_slice(&(families.len() as u32).to_ne_bytes());
        }
        shared.update(&key, &bytes, MapFlags::ANY).unwrap();
        assert_eq!(status().pending, Some(active.generation + 1));

        // The first of the commands is refused after it repaired, so what it did is all that was done.
        let refused = next.contains(&"/bin/bad_verify");
        assert_eq!(cli(next).code, i32::from(refused), "{next:?}");
        let now = Host::running(&pins).unwrap();
        assert_eq!((now.data.nr_orphans(), now.registry.pending.is_none()), (0, true), "after {next:?}");
        if refused {
            assert_eq!(now.data.active(), active);
        }
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    }
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// `scx-upgrade swap` of this binary, not waited for.
fn swap(binary: &str) -> std::process::Child {
    Command::new("/bin/scx-upgrade")
        .args(["swap", "--again", "--timeout", "120", binary])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does a process handle a signal itself?
fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    caught >> (signal - 1) & 1 == 1
}

/// The command ends, by a signal or killed, while it waits or loads: nothing is changed afterwards, and the exit code
/// says what is so.
#[test]
fn an_interrupted_command_changes_nothing_afterwards() {
    fresh();
    report(&["run", V1]);
    let begin = Instant::now();
    report(&["swap", PLAIN]);
    let length = begin.elapsed();
    report(&["rollback"]);
    wait_until("the superseded process ends", || pids("plain").is_empty());
    let (generation, watch) = (status().generation, EnabledWatch::start());

    // While it waits for another command it cannot have got further.
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGKILL] {
        let folder = File::open(PINS).unwrap();
        // SAFETY: the descriptor is open for the whole call.
        assert_eq!(unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX) }, 0);
        let command = swap(PLAIN);
        wait_until("it handles the signal", || signal == libc::SIGKILL || catches(command.id(), signal));
        kill(command.id() as i32, signal);
        let ended = command.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        if signal != libc::SIGKILL {
            assert_eq!(ended.status.code(), Some(10), "{said}");
            assert!(said.contains("nothing was changed"), "{said}");
        }
        drop(folder);
        assert_eq!((status().generation, status().pending), (generation, None), "after signal {signal}");
    }

    // At moments spread over all of its length.
    let (mut before_commit, mut after_commit) = (0, 0);
    let rounds = rounds(12);
    for n in 0..rounds {
        let generation = status().generation;
        let command = swap([PLAIN, V1][n as usize % 2]);
        std::thread::sleep(length * (n + 1) / rounds);
        kill(command.id() as i32, libc::SIGTERM);
        let ended = command.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let now = status();
        // By its default action where it came before the command handled it, or after it had its report.
        match ended.status.code() {
            Some(10) => assert_eq!((now.generation, now.pending), (generation, None), "{said}"),
            Some(0) => assert_eq!((now.generation, now.pending), (generation + 1, None), "{said}"),
            Some(code) => panic!("exit code {code}: {said}"),
            None => {}
        }
        match now.generation - generation {
            0 => before_commit += 1,
            _ => after_commit += 1,
        }
    }
    println!("interrupted before the commit: {before_commit}, after it: {after_commit}");
    assert!(before_commit > 0, "none was early enough");
    watch.finish();
    fresh();
}

//! Two operators at once: one after the other, and whoever waits in vain is told for whom.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use e2e::EnabledWatch;
use e2e::PINS;
use e2e::cli;
use e2e::command;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::status;
use e2e::swaps;
use e2e::wait_until;
use scx_upgrade_engine::observe::report::Report;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const PLAIN: &str = "/bin/plain";
const ROUNDS: u32 = 100;

/// Whoever takes the lock of the host's folder as any process may.
struct Holder(File);

impl Holder {
    fn new() -> Holder {
        let folder = File::open(PINS).unwrap();
        // SAFETY: the descriptor is open for the whole call.
        assert_eq!(unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
        Holder(folder)
    }
}

#[test]
fn two_operators_at_once_come_one_after_the_other() {
    fresh();
    let load = load(100);
    report(&["run", V1]);
    report(&["swap", V2]);
    let watch = EnabledWatch::start();
    for round in 0..swaps(ROUNDS) {
        let before = status();
        let runs = before.slots.iter().find(|s| s.active).map(|s| format!("{} {}", s.policy, s.version));
        let ours: &[&str] = &["swap", "--timeout", "120", [PLAIN, V1][round as usize % 2]];
        // Back to whatever ran then, or another swap.
        let theirs: &[&str] = match round % 4 {
            3 => &["swap", "--timeout", "120", V2],
            _ => &["rollback", "--timeout", "120"],
        };
        let done: Vec<Report> = thread::scope(|operators| {
            let both = [ours, theirs].map(|args| operators.spawn(move || report(args)));
            both.into_iter().map(|operator| operator.join().unwrap()).collect()
        });
        let (first, second) = match done[0].generation < done[1].generation {
            true => (&done[0], &done[1]),
            false => (&done[1], &done[0]),
        };
        let numbers = (first.generation, second.generation);
        assert_eq!(numbers, (before.generation + 1, before.generation + 2), "round {round}");
        assert_eq!(first.from, runs, "round {round}: the first replaced what ran");
        assert_eq!(second.from.as_ref(), Some(&first.to), "round {round}: the second replaced the first");
        let now = status();
        assert_eq!((now.generation, now.pending, now.held), (second.generation, None, false));
        let active: Vec<_> = now.slots.iter().filter(|s| s.active).collect();
        assert_eq!(active.len(), 1);
        assert_eq!(format!("{} {}", active[0].policy, active[0].version), second.to);
        assert!(now.queues.iter().any(|q| q.slots.contains(&u32::from(active[0].slot))), "it has its queue");
    }
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn who_waits_in_vain_is_told_for_whom() {
    fresh();
    report(&["run", V1]);
    report(&["swap", V2]);
    let before = status();
    let holder = Holder::new();
    let name = format!("PID {}: ", std::process::id());
    let none: &[&str] = &[];
    for (args, rest) in [("swap", [PLAIN].as_slice()), ("rollback", none), ("stop", none)] {
        let ran = cli(&[&[args, "--timeout", "1"], rest].concat());
        assert_eq!(ran.code, 1, "{args}: {}", ran.out);
        for words in ["another command is changing the scheduler", &name, "within 1 s", "--timeout"] {
            assert!(ran.err.contains(words), "{args} does not say {words:?} but: {}", ran.err);
        }
    }
    // Looking needs no lock.
    let now = status();
    assert_eq!((now.generation, now.slots.len()), (before.generation, before.slots.len()));
    assert_eq!(cli(&["rollback", "--dry-run"]).code, 0);

    // Who has patience gets its turn.
    let mut waits = Command::new("/bin/scx-upgrade")
        .args(["-q", "rollback", "--timeout", "120"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(std::time::Duration::from_millis(500));
    assert!(waits.try_wait().unwrap().is_none(), "it waits");
    drop(holder.0);
    assert!(waits.wait().unwrap().success());
    assert_eq!(status().generation, before.generation + 1);
    fresh();
}

/// Of several who start at once one starts, and the others are refused: none is swapped over another's without having asked
/// for it.
#[test]
fn one_of_many_starts_is_the_start() {
    fresh();
    let ran: Vec<_> = thread::scope(|operators| {
        let all = [V1, V2, PLAIN].map(|binary| {
            operators.spawn(move || {
                command(Command::new("/bin/scx-upgrade").args(["run", "--timeout", "120", binary]))
            })
        });
        all.into_iter().map(|operator| operator.join().unwrap()).collect()
    });
    assert_eq!(ran.iter().filter(|r| r.code == 0).count(), 1, "{ran:?}");
    for refused in ran.iter().filter(|r| r.code != 0) {
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("is running already"), "{refused:?}");
    }
    let now = status();
    assert_eq!((now.generation, now.slots.len()), (1, 1));
    fresh();
}

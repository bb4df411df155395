//! The guard: a swap that changes nothing is never taken for a bad one, however noisy the load; one that makes tasks wait is
//! always found, and taken back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::load;
use e2e::pids;
use e2e::report;
use e2e::status;
use e2e::swaps;
use e2e::wait_until;
use scx_upgrade_engine::observe::guard::Verdict;
use scx_upgrade_engine::observe::guard::judge::Measure;

const POLICY: &str = "/bin/scx_mini";

/// One swap on probation: its exit code, and how it ended. The baseline is shorter than it usually is, with as many windows.
fn on_probation(time: &str, args: &[&str]) -> (i32, Verdict) {
    let own = ["--json", "swap", "--probation", time, "--baseline", "4s"];
    let ran = cli(&[&own, args].concat());
    let document: serde_json::Value = serde_json::from_str(&ran.out)
        .unwrap_or_else(|e| panic!("no single document ({e}): {} {}", ran.out, ran.err));
    let verdict = serde_json::from_value(document["probation"].clone());
    (ran.code, verdict.unwrap_or_else(|e| panic!("no verdict ({e}): {} {}", ran.out, ran.err)))
}

/// A load whose weight swings: bursts of all lengths, at random times.
struct Noise {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Noise {
    fn start() -> Noise {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            while !flag.load(Ordering::Relaxed) {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let group = Cgroup::root();
                let hogs: Vec<_> = (0..random >> 61).map(|_| Busy::start(&group)).collect();
                std::thread::sleep(Duration::from_millis(random >> 40 & 0xff));
                drop(hogs);
                std::thread::sleep(Duration::from_millis(random >> 50 & 0x7f));
            }
        });
        Noise { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[test]
fn guard_lets_a_swap_be_that_changes_nothing() {
    fresh();
    let load = load(200);
    report(&["run", POLICY]);
    let noise = Noise::start();
    let watch = EnabledWatch::start();
    for swap in 0..swaps(4) {
        assert_eq!(on_probation("4s", &[POLICY]), (0, Verdict::Good), "swap {swap}");
    }
    watch.finish();
    noise.end();
    load.stop().unwrap();
    fresh();
}

#[test]
fn guard_finds_one_that_makes_tasks_wait() {
    fresh();
    let load = load(200);
    let group = Cgroup::root();
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&group)).collect();
    report(&["run", POLICY, "--", "--slice-us", "2000"]);
    let watch = EnabledWatch::start();
    for swap in 0..swaps(2) {
        // With slices of 100 ms each task waits for as long behind whoever computes.
        let generation = status().generation;
        // This is about delay: on a machine that gets little of a CPU someone may wait too long altogether before that.
        match on_probation("20s", &["--max-wait", "10m", POLICY, "--", "--slice-us", "100000"]) {
            (7, Verdict::Bad(breach)) => {
                println!("swap {swap}: {breach}");
                assert_eq!(breach.measure, Measure::WakeUpDelay);
                assert!(breach.seen > breach.limit && breach.limit > breach.usual, "{breach:?}");
            }
            other => panic!("swap {swap}: {other:?}"),
        }
        // The swap, and the way back.
        assert_eq!(status().generation, generation + 2);
    }
    watch.finish();
    drop(hogs);
    load.stop().unwrap();
    fresh();
}

/// Long before the kernel's watchdog, after 30 s, would take the host off.
#[test]
fn guard_takes_back_what_would_stall() {
    fresh();
    let load = load(100);
    let starved = Cgroup::new("guard_starved");
    let group = Cgroup::root();
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&group)).collect();
    let poor = Busy::start(&starved);
    report(&["run", "/bin/ledger_a"]);
    let watch = EnabledWatch::start();
    let cgroup = starved.id().to_string();
    for how in ["drop", "forget", "starve"] {
        let args = ["--max-wait", "2s", "/bin/misbehave", "--", "--how", how, "--cgroup", &cgroup];
        match on_probation("60s", &args) {
            (7, Verdict::Bad(breach)) => {
                println!("{how}: {breach}");
                assert_eq!(breach.measure, Measure::LongestWait, "{breach}");
            }
            other => panic!("{how}: {other:?}"),
        }
        assert_eq!(pids("ledger_a").len(), 1, "its process has stood by");
        // Whom it had forgotten has not been forgotten.
        let (before, used) = (load.progress(), starved.usage_us());
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
        wait_until("nobody is left waiting", || load.progress().overdue_ns() < 2_000_000_000);
        wait_until("the cgroup advances", || starved.usage_us() > used);
    }
    watch.finish();
    drop((hogs, poor));
    load.stop().unwrap();
    fresh();
}

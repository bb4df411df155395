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
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::rounds;
use scx_upgrade_sdk::guard::Guard;
use scx_upgrade_sdk::guard::Limits;
use scx_upgrade_sdk::guard::Verdict;
use scx_upgrade_sdk::guard::judge::Measure;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

const POLICY: &str = "/bin/scx_mini";
/// As long as a probation of one that is bad takes at most.
const PROBATION: Duration = Duration::from_secs(20);

/// Shorter than the defaults, so that there are many: fewer windows before and in a row make a false alarm likelier.
fn limits() -> Limits {
    Limits {
        window: Duration::from_millis(100),
        baseline: 20,
        in_a_row: 6,
        delay_floor: Duration::from_millis(1),
        longest_wait: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// One swap under guard.
fn guarded(args: &[&str], probation: Duration) -> Verdict {
    let pins = Pins::open().unwrap();
    let mut guard = Guard::with_baseline(&Host::running(&pins).unwrap(), limits()).unwrap();
    let done = report(&[&["swap"], args].concat());
    guard.probation(&Host::running(&pins).unwrap(), done.generation, probation).unwrap()
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

/// How many swaps to do: `SCX_UPGRADE_SWAPS`, or so many, fewer on older kernels.
fn swaps(usual: u32) -> u32 {
    std::env::var("SCX_UPGRADE_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| rounds(usual))
}

#[test]
fn guard_lets_a_swap_be_that_changes_nothing() {
    fresh();
    let load = load(200);
    report(&["run", POLICY]);
    let noise = Noise::start();
    let watch = EnabledWatch::start();
    for swap in 0..swaps(12) {
        let verdict = guarded(&[POLICY], Duration::from_secs(3));
        assert_eq!(verdict, Verdict::Good, "swap {swap}");
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
    for swap in 0..swaps(5) {
        // With slices of 100 ms each task waits for as long behind whoever computes.
        match guarded(&[POLICY, "--", "--slice-us", "100000"], PROBATION) {
            Verdict::Bad(breach) => {
                println!("swap {swap}: {breach}");
                assert_eq!(breach.measure, Measure::WakeUpDelay);
                assert!(breach.seen > breach.limit && breach.limit > breach.usual, "{breach:?}");
            }
            other => panic!("swap {swap}: {other:?}"),
        }
        report(&["rollback"]);
    }
    watch.finish();
    drop(hogs);
    load.stop().unwrap();
    fresh();
}

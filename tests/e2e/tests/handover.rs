//! What a commit leaves to do for the tasks that the earlier policy placed: see `bpf/host/handover.bpf.h`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::report;
use e2e::wait_until;

const MINI: &str = "/bin/scx_mini";
const BARE: &str = "/bin/bare";
const FAIR: &str = "/bin/scx_fair_v2";
const ENDLESS: &str = "/bin/endless";

/// Threads that look up paths all the time: they are in RCU read sections for much of it, and are preempted there.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Readers {
    fn start(count: usize) -> Readers {
        let stop = Arc::new(AtomicBool::new(false));
        let read = |stop: Arc<AtomicBool>| {
            let path = "/sys/kernel/sched_ext/root/../../../kernel/mm/../sched_ext/state";
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::metadata(path);
                }
            }
        };
        let threads = (0..count).map(|_| std::thread::spawn(read(stop.clone()))).collect();
        Readers { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// How long a grace period takes, as a swap waits for one.
fn grace_period() -> Duration {
    const GLOBAL: libc::c_long = 1;
    let begin = Instant::now();
    // SAFETY: no memory is involved.
    let ret = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    assert_eq!(ret, 0, "membarrier: {}", std::io::Error::last_os_error());
    begin.elapsed()
}

/// `bare` puts every task on the global DSQ, which the kernel serves before it asks the host for a task. So nobody asks for those
/// that wait on a queue of scx_mini's, and one of them may be what the grace period waits for.
#[test]
fn a_full_global_queue_does_not_hold_up_the_settle() {
    fresh();
    report(&["run", MINI]);
    let watch = EnabledWatch::start();
    let readers = Readers::start(6);
    let (mut usual, mut longest, mut handed) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..4 {
        for next in [BARE, MINI] {
            let done = report(&["swap", next]);
            println!("{next}: settled in {} us", done.timings.settle_ns / 1000);
            longest = longest.max(Duration::from_nanos(done.timings.settle_ns));
            handed += done.tasks_handed_over;
            // With nothing to hand over.
            usual = (0..4).map(|_| grace_period()).fold(usual, Duration::max);
        }
    }
    println!(
        "longest settle {longest:?}, longest grace period otherwise {usual:?}, {handed} tasks handed over"
    );
    assert!(handed > 0, "nobody waited on a queue at any commit");
    assert!(longest <= 8 * usual, "a settle took {longest:?}, a grace period otherwise {usual:?} at most");
    readers.stop();
    watch.finish();
    fresh();
}

/// Tasks that have slices without end run on for ever under a policy that does not end their turns.
#[test]
fn slices_without_end_do_not_outlive_their_policy() {
    fresh();
    let groups: Vec<_> = (0..6).map(|n| Cgroup::new(&format!("hog{n}"))).collect();
    report(&["run", ENDLESS]);
    let watch = EnabledWatch::start();
    let hogs: Vec<_> = groups.iter().map(Busy::start).collect();
    let all_run = |what: &str| {
        let before: Vec<_> = groups.iter().map(Cgroup::usage_us).collect();
        let ran = || groups.iter().zip(&before).all(|(group, before)| group.usage_us() > before + 50_000);
        wait_until(what, ran);
    };
    all_run("all run under their own policy");
    // The queue of this name is kept, with those who wait on it.
    let kept = report(&["swap", MINI]).queues;
    assert!(kept.iter().any(|queue| queue.fate.to_string().starts_with("kept")), "{kept:?}");
    all_run(MINI);
    report(&["rollback"]);
    all_run("all run after the rollback");
    report(&["swap", FAIR]);
    all_run(FAIR);
    drop(hogs);
    watch.finish();
    fresh();
}

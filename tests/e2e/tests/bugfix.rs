//! A scheduler with a bug is replaced by the version without it, under the load that the bug is bad for: what it showed is
//! gone, and the state that all tasks had is kept.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use e2e::EnabledWatch;
use e2e::fresh;
use e2e::report;

/// How long those sleep that come back all at once.
const NAP: Duration = Duration::from_secs(4);
/// And how long they compute then.
const BURST: Duration = Duration::from_secs(2);
/// How many of them for each CPU.
const NAPPERS: u64 = 2;

/// For each CPU a thread that computes all the time, and notes how long it went without a turn; and two that sleep for long
/// and then compute. (With one for each CPU the others would come in between: a CPU asks for the next task before the one
/// that had its turn is queued again.)
struct Machine {
    stop: Arc<AtomicBool>,
    longest_ns: Arc<AtomicU64>,
    naps: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Machine {
    fn start() -> Machine {
        let (stop, longest_ns, naps) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut threads = Vec::new();
        let begin = Instant::now();
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let (end, longest) = (stop.clone(), longest_ns.clone());
            threads.push(std::thread::spawn(move || {
                let mut last = Instant::now();
                while !end.load(Ordering::Relaxed) {
                    let now = Instant::now();
                    longest.fetch_max((now - last).as_nanos() as u64, Ordering::Relaxed);
                    last = now;
                }
            }));
            for _ in 0..NAPPERS {
                let (end, naps) = (stop.clone(), naps.clone());
                threads.push(std::thread::spawn(move || {
                    // All at the same time, whoever was late before.
                    for round in 1.. {
                        let wakes = begin + (NAP + BURST) * round;
                        std::thread::sleep(wakes.saturating_duration_since(Instant::now()));
                        let awake = Instant::now();
                        while awake.elapsed() < BURST && !end.load(Ordering::Relaxed) {}
                        if end.load(Ordering::Relaxed) {
                            return;
                        }
                        naps.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            }
        }
        Machine { stop, longest_ns, naps, threads }
    }

    /// The longest that a busy thread went without a turn, over some naps of each of the others.
    fn longest_wait(&self) -> Duration {
        // What is under way belongs to neither.
        self.wait_for_naps(1);
        self.longest_ns.store(0, Ordering::Relaxed);
        self.wait_for_naps(2);
        Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed))
    }

    fn wait_for_naps(&self, each: u64) {
        let nappers = self.threads.len() as u64 * NAPPERS / (NAPPERS + 1);
        let wanted = self.naps.load(Ordering::Relaxed) + each * nappers;
        e2e::wait_until("they have slept and computed", || self.naps.load(Ordering::Relaxed) >= wanted);
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_bug_is_mended_while_it_runs() {
    fresh();
    report(&["run", "/bin/dozy_1"]);
    let machine = Machine::start();
    let watch = EnabledWatch::start();
    let bug = machine.longest_wait();
    let mended = report(&["swap", "/bin/dozy_2"]);
    let fixed = machine.longest_wait();
    println!("longest wait of a busy thread: {bug:?} with the bug, {fixed:?} without");
    assert!(mended.columns.iter().all(|row| row.fate == "carried"), "{:?}", mended.columns);
    // Seconds; then slices.
    assert!(bug > fixed * 3, "{bug:?} and {fixed:?}");
    machine.end();
    watch.finish();
    fresh();
}

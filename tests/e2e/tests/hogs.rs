//! Threads that compute without end, far more of them than CPUs, and one thread of little weight among them: nobody waits
//! without bound. A thread that does would get the scheduler ejected by the kernel's watchdog after 30 s.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use e2e::EnabledWatch;
use e2e::fresh;
use e2e::report;
use e2e::status;

/// The host's watchdog, `timeout_ms` in bpf/host/main.bpf.c.
const WATCHDOG: Duration = Duration::from_secs(30);

/// How long each load runs. Longer than the bound that is asserted, so that a thread that is not served shows.
const SECONDS: u64 = 12;

/// Policies that are tried in each run: one of each way to choose the next task.
const POLICIES: [&str; 4] = ["scx_mini", "scx_mix", "scx_core", "generated-cgroup"];

/// The others, which share their way with one of those. They are tried where `SCX_UPGRADE_SECONDS` says how long.
const MORE_POLICIES: [&str; 5] = ["scx_fair_v2", "scx_fair", "scx_lat", "generated-fair", "generated-llc"];

/// What the thread of little weight is.
#[derive(Clone, Copy, Debug)]
enum Light {
    /// Nice 19.
    Nice,
    /// `SCHED_IDLE`, as the kernel's own khugepaged sometimes is.
    Idle,
}

/// Threads that compute without end, each of which notes the longest time that it went without a turn.
struct Hogs {
    stop: Arc<AtomicBool>,
    begun: Arc<Barrier>,
    heavy: Vec<JoinHandle<Duration>>,
    light: JoinHandle<Duration>,
}

impl Hogs {
    /// `hogs` threads of nice 0 and one of little weight; all of them on the last CPU where `pinned` says so.
    fn start(hogs: usize, light: Light, pinned: bool) -> Hogs {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(Barrier::new(hogs + 2));
        let spawn = |kind: Option<Light>| {
            let (stop, begun) = (stop.clone(), begun.clone());
            std::thread::spawn(move || {
                if pinned {
                    pin_to_last_cpu();
                }
                match kind {
                    Some(Light::Nice) => set_nice(19),
                    Some(Light::Idle) => set_idle_class(),
                    None => {}
                }
                begun.wait();
                compute(&stop)
            })
        };
        let heavy = (0..hogs).map(|_| spawn(None)).collect();
        let light = spawn(Some(light));
        Hogs { stop, begun, heavy, light }
    }

    /// Lets all of them begin, waits, and ends them: the longest wait of a thread of nice 0, and that of the light one.
    fn run(self, length: Duration) -> (Duration, Duration) {
        self.begun.wait();
        std::thread::sleep(length);
        self.stop.store(true, Ordering::Relaxed);
        let light = self.light.join().unwrap();
        let heavy = self.heavy.into_iter().map(|thread| thread.join().unwrap()).max().unwrap();
        (heavy, light)
    }
}

/// Computes until it is told to stop: the longest time between two looks at the clock. The last one ends with a turn as well.
fn compute(stop: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        if stop.load(Ordering::Relaxed) {
            return longest;
        }
    }
}

fn pin_to_last_cpu() {
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    // SAFETY: an all-zero set is an empty one, and the call gets its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(last, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set), 0);
    }
}

fn set_nice(nice: i32) {
    // SAFETY: no memory is involved; 0 is the calling thread.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }, 0);
}

fn set_idle_class() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure is complete; 0 is the calling thread.
    assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) }, 0);
}

/// No thread of this load waits for as long as a third of the watchdog's time, in a load that lasts longer than that.
fn nobody_waits(policy: &str, hogs: usize, light: Light, pinned: bool, seconds: u64) {
    report(&["run", &format!("/bin/{policy}")]);
    let watch = EnabledWatch::start();
    let (heavy, lightest) = Hogs::start(hogs, light, pinned).run(Duration::from_secs(seconds));
    let cpus = if pinned { "1 CPU".to_owned() } else { "all CPUs".to_owned() };
    // Not captured: the longest wait is what a reader of the run wants to know.
    let _ = writeln!(
        std::io::stdout(),
        "{policy}, {hogs} hogs and one of {light:?} on {cpus}, {seconds} s: longest wait {heavy:.2?}, of the light one {lightest:.2?}"
    );
    watch.finish();
    assert_eq!(status().generation, 1, "{policy} was taken back");
    let longest = heavy.max(lightest);
    assert!(longest < WATCHDOG / 3, "{policy}: a thread waited for {longest:?} beside {hogs} hogs on {cpus}");
    fresh();
}

#[test]
fn nobody_waits_without_bound_beside_hogs() {
    let told = std::env::var("SCX_UPGRADE_SECONDS").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    fresh();
    let Some(seconds) = told else {
        for (n, policy) in POLICIES.iter().enumerate() {
            let light = if n % 2 == 0 { Light::Nice } else { Light::Idle };
            nobody_waits(policy, 60, light, true, SECONDS);
        }
        return;
    };
    for policy in POLICIES.iter().chain(&MORE_POLICIES) {
        for hogs in [60, 200] {
            nobody_waits(policy, hogs, Light::Nice, false, seconds);
            nobody_waits(policy, hogs, Light::Idle, true, seconds);
        }
    }
}

//! The task table has all tasks, and the sweep goes along it: those too that sched_ext never has, those for which it has no room, those
//! that are born and die meanwhile, and none whose fork failed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::oracle::host;
use e2e::report;
use e2e::wait_until;
use guest::load::Kind;
use guest::reader::Key;
use guest::reader::Reader;

const V1: &str = "/bin/sweep_1";
const V2: &str = "/bin/sweep_2";

/// Threads that sleep until this is dropped, in the class that whoever makes them is in.
struct Sleepers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sleepers {
    fn make(count: usize) -> Sleepers {
        let over = Arc::new(AtomicBool::new(false));
        let sleep = |over: Arc<AtomicBool>| {
            while !over.load(Ordering::Acquire) {
                thread::park();
            }
        };
        let small = || thread::Builder::new().stack_size(64 * 1024);
        let threads = (0..count).map(|_| {
            let over = Arc::clone(&over);
            small().spawn(move || sleep(over)).unwrap()
        });
        Sleepers { threads: threads.collect(), over }
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

/// Run `f` in the lowest real-time class, which what it forks is born in.
fn in_real_time<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|threads| {
        let run = || {
            let param = libc::sched_param { sched_priority: 1 };
            // SAFETY: 0 names the calling thread, and `param` is ours.
            assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) }, 0);
            f()
        };
        threads.spawn(run).join().unwrap()
    })
}

fn there(reader: &mut Reader) -> HashSet<Key> {
    let entries = reader.snapshot().unwrap().entries;
    entries.into_iter().filter(|e| !e.is_idle_thread()).map(|e| e.key()).collect()
}

/// Swap, and see that of those who were there before and still are each has a record that is up to date. How many there were.
fn swap_and_audit(reader: &mut Reader, to: &str) -> usize {
    let before = there(reader);
    let swept =
        report(&["swap", to]).swept("task").cloned().expect("the plan has steps, and yet nothing was swept");
    assert_eq!(swept.missing, 0);
    let epoch = host().data.active().epoch;
    let after = reader.snapshot().unwrap().entries;
    let mut seen = 0;
    for entry in after.iter().filter(|e| before.contains(&e.key()) && !e.is_exiting()) {
        assert_eq!(entry.stamp, epoch, "pid {} ({})", entry.key().pid, entry.comm());
        seen += 1;
    }
    seen
}

#[test]
fn who_sched_ext_never_has_is_swept_too() {
    fresh();
    let load = load(200);
    report(&["run", V1]);
    let mut reader = Reader::open(&host()).unwrap();
    let watch = EnabledWatch::start();

    // There before the preparations: they give them rows.
    let untracked = in_real_time(|| Sleepers::make(50));
    assert!(host().data.untracked() >= 50, "{} untracked", host().data.untracked());
    assert!(swap_and_audit(&mut reader, V2) > 250);
    assert!(host().data.untracked() < 50, "{} untracked", host().data.untracked());
    report(&["rollback"]);

    // Born all the time, also between the preparations and the sweep.
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            in_real_time(|| {
                while !over.load(Ordering::Relaxed) {
                    drop(Sleepers::make(20));
                    thread::sleep(Duration::from_millis(5));
                }
            });
        });
        for _ in 0..2 {
            swap_and_audit(&mut reader, V2);
            report(&["rollback"]);
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(untracked);
    wait_until("nobody has none", || host().data.untracked() == 0);
    watch.finish();
    load.stop().unwrap();
    fresh();
}

/// The task table has room for as many tasks as the kernel allowed when the host was started. Then it allows more.
#[test]
fn who_the_task_table_has_no_room_for_is_swept_too() {
    const LIMIT: &str = "/proc/sys/kernel/threads-max";
    fresh();
    let usual = std::fs::read_to_string(LIMIT).unwrap();
    std::fs::write(LIMIT, "400").unwrap();
    report(&["run", V1]);
    std::fs::write(LIMIT, usual).unwrap();
    guest::load::raise_limits(3_000).unwrap();
    let mut reader = Reader::open(&host()).unwrap();
    let watch = EnabledWatch::start();
    let many = Sleepers::make(2_500);
    assert!(host().data.untracked() > 500, "{} untracked", host().data.untracked());
    assert!(host().data.rows() < 2_000, "{} rows", host().data.rows());
    for _ in 0..2 {
        assert!(swap_and_audit(&mut reader, V2) > 2_500);
        report(&["rollback"]);
    }
    // Rows that are free again are given.
    drop(many);
    swap_and_audit(&mut reader, V2);
    assert_eq!(host().data.untracked(), 0);
    report(&["rollback"]);
    let few = Sleepers::make(500);
    assert_eq!(host().data.untracked(), 0);
    assert!(swap_and_audit(&mut reader, V2) > 500);
    drop(few);
    watch.finish();
    fresh();
}

/// A process in a cgroup that forks, so often, in the lowest real-time class or not; each child ends at once.
struct Forker(i32);

impl Forker {
    fn start(group: &Cgroup, times: i32, real_time: bool) -> Forker {
        // SAFETY: the child makes system calls only: it takes no lock and allocates nothing.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no memory is involved but `param`, which is ours.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::raise(libc::SIGSTOP);
                let param = libc::sched_param { sched_priority: 1 };
                if real_time && libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) != 0 {
                    libc::_exit(255);
                }
                let mut failed = 0;
                for _ in 0..times {
                    match libc::fork() {
                        0 => libc::_exit(0),
                        -1 => failed += 1,
                        child => {
                            libc::waitpid(child, std::ptr::null_mut(), 0);
                        }
                    }
                }
                libc::_exit(failed)
            }
        }
        assert!(pid > 0, "cannot fork");
        let mut status = 0;
        // SAFETY: `status` is ours.
        unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) };
        assert!(libc::WIFSTOPPED(status));
        group.take(pid);
        kill(pid, libc::SIGCONT);
        Forker(pid)
    }

    /// Its status, when it has ended.
    fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        status
    }
}

#[test]
fn rows_are_given_again_and_a_fork_that_fails_has_none() {
    const TIMES: i32 = 20;
    fresh();
    let load = load(300);
    report(&["run", "/bin/ledger_b"]);
    let mut reader = Reader::open(&host()).unwrap();
    let watch = EnabledWatch::start();
    let (root, refused) = (Cgroup::root(), Cgroup::new("roster_refused"));
    let cgroup = refused.id().to_string();
    report(&["swap", "/bin/misbehave", "--", "--how", "refuse", "--cgroup", &cgroup]);
    let (rows, forks) = (host().data.rows(), load.ops(Kind::Fork));

    // The policy refuses them.
    for real_time in [false, true] {
        let status = Forker::start(&refused, TIMES, real_time).wait();
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == TIMES,
            "real time {real_time}: {status:#x}"
        );
    }
    // Who forks is killed: a fork that is under way then fails late.
    for n in 0..TIMES as u64 {
        let forker = Forker::start(&root, i32::MAX, n % 2 == 1);
        thread::sleep(Duration::from_micros(500 + n * 37 % 1_000));
        kill(forker.0, libc::SIGKILL);
        assert!(libc::WIFSIGNALED(forker.wait()));
    }
    let born = || load.ops(Kind::Fork) - forks;
    wait_until("hundreds were born and have died", || born() > 400);
    wait_until("nobody has none", || host().data.untracked() == 0);
    // As many more as there happened to be at once, and not one for each.
    let (more, born) = (u64::from(host().data.rows() - rows), born());
    println!("{more} rows more than {rows}, {born} born by the load alone");
    assert!(more < born / 4, "{more} rows more than {rows}, and {born} were born");
    report(&["swap", "/bin/ledger_b"]);
    assert!(there(&mut reader).len() > 300);
    drop(refused);
    watch.finish();
    load.stop().unwrap();
    fresh();
}

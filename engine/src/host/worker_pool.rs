//! Threads that share a sweep of many tasks with the one that has it. They are started before it is time, while there is a grace
//! period to wait for: to start a thread takes milliseconds of what the sweep takes.
//!
//! They need not be as urgent as that one: if all CPUs were taken from everybody else for as long as a sweep takes, everybody else
//! would wait for so long, and behind each other afterwards.

use crate::host::scopes::SWEEP_TASKS;
use crate::kernel::bpf;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::SweepArgs;
use crate::kernel::sysfs;
use crate::os::affinity::PinnedToCpu;
use crate::os::priority;
use crate::os::realtime;

/// From so many tasks on a sweep may take long enough to say how far it is, and how often; and for a pause to be as long as a piece.
pub(crate) const SLOW: u64 = 500_000;
/// A SCHED_FIFO thread pauses after each piece for this part of the time that the piece took.
const PAUSE: u32 = 8;

/// From so many tasks on a sweep is shared among CPUs, and it pays to put its plan into instructions.
pub(crate) const MANY: u64 = 4_000;

/// The most CPUs that share one. They contend for the next rows of the task table each few microseconds, and everybody else is to have
/// CPUs too.
const MOST: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct WorkerPool {
    workers: Vec<Worker>,
}

/// A thread, which ends when there can be no more jobs for it.
#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    done: Receiver<Result<SweepArgs>>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Job {
    program: OwnedFd,
    args: SweepArgs,
}

impl WorkerPool {
    /// Nobody: this thread does all of it.
    pub fn none() -> WorkerPool {
        WorkerPool { workers: Vec::new() }
    }

    /// As many as the machine has CPUs for, besides the one that this thread has; none where there are few tasks. They are in
    /// the class and at the priority that this thread is in. Where one cannot be had, its share is for the others.
    pub fn spawn() -> WorkerPool {
        WorkerPool::of(|| {})
    }

    /// The same, and they run when the policy lets them. This thread never depends on it.
    pub fn spawn_at_min_nice() -> WorkerPool {
        WorkerPool::of(priority::raise)
    }

    fn of(begin: fn()) -> WorkerPool {
        let many = sysfs::tasks() >= MANY;
        let cpus = thread::available_parallelism().map_or(1, |n| n.get().min(MOST));
        let workers = if many { (1..cpus).map_while(|_| Worker::start(begin)).collect() } else { Vec::new() };
        WorkerPool { workers }
    }

    /// Have each of them do a share of a sweep of tasks, and `own` by this thread meanwhile. What they came to.
    ///
    /// Where this thread is urgent and they are not, they run when the policy lets them, and it does what they do not come to.
    /// That the last of them says so must not wait for the policy: then they are as urgent. And they are kept off its CPU. There they
    /// would begin in a pause, and be stuck: a task in a BPF program cannot migrate.
    pub fn share(
        &self,
        program: BorrowedFd<'_>,
        args: SweepArgs,
        own: impl FnOnce() -> Result<SweepArgs>,
    ) -> Result<Vec<SweepArgs>> {
        let stay = (!self.workers.is_empty() && realtime::is_realtime()).then(PinnedToCpu::begin).flatten();
        if let Some(stay) = &stay {
            self.workers.iter().for_each(|worker| stay.exclude_cpu(&worker.thread));
        }
        let at_it: Vec<_> = self.workers.iter().filter(|worker| worker.begin(program, args)).collect();
        let own = own();
        at_it.iter().for_each(|worker| realtime::promote_to_fifo(&worker.thread));
        // All of them are waited for, whatever becomes of one.
        let theirs: Vec<_> = at_it.into_iter().map(Worker::wait).collect();
        std::iter::once(own).chain(theirs).collect()
    }
}

impl Worker {
    fn start(begin: fn()) -> Option<Worker> {
        let (jobs, orders) = channel::<Job>();
        let (results, done) = channel();
        let serve = move || {
            begin();
            for Job { program, args } in orders {
                if results.send(share(program.as_fd(), args)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("sweep".to_string()).spawn(serve);
        let thread =
            thread.map_err(|e| log::warn!("the sweep takes longer: it has no other thread: {e}")).ok()?;
        Some(Worker { jobs, done, thread })
    }

    /// False if it cannot: then there is nothing to wait for, and the others have more to do.
    fn begin(&self, program: BorrowedFd<'_>, args: SweepArgs) -> bool {
        let own = program.try_clone_to_owned();
        own.is_ok_and(|program| self.jobs.send(Job { program, args }).is_ok())
    }

    fn wait(&self) -> Result<SweepArgs> {
        self.done.recv().map_err(std::io::Error::other).trying("a thread of the sweep is gone")?
    }
}

/// What falls to this CPU of a sweep of the task table, in pieces, and the sums of it.
pub(crate) fn share(program: BorrowedFd<'_>, args: SweepArgs) -> Result<SweepArgs> {
    let yields = realtime::is_realtime();
    let pause = if sysfs::tasks() >= SLOW { 1 } else { PAUSE };
    let args = SweepArgs { yields: yields.into(), ..args };
    let mut sums = args;
    loop {
        let begin = Instant::now();
        let piece = run(program, SWEEP_TASKS, args)?;
        sums = plus(sums, piece);
        if piece.has_more == 0 {
            return Ok(sums);
        }
        if yields {
            thread::sleep(begin.elapsed() / pause);
        } else {
            thread::yield_now();
        }
    }
}

pub(crate) fn run(program: BorrowedFd<'_>, name: &str, mut args: SweepArgs) -> Result<SweepArgs> {
    let ret = bpf::run(&program, name, &mut args)?;
    if ret < 0 {
        return Err(std::io::Error::from_raw_os_error(-ret)).trying(format!("cannot sweep: {name}"));
    }
    Ok(args)
}

/// The sums of both, and otherwise the first.
pub(crate) fn plus(a: SweepArgs, b: SweepArgs) -> SweepArgs {
    SweepArgs {
        visited: a.visited + b.visited,
        applied: a.applied + b.applied,
        missing: a.missing + b.missing,
        remaining: a.remaining + b.remaining,
        ..a
    }
}

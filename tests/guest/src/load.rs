//! A load of many live threads, most of them asleep.
//!
//! [`Load::start`] puts up the threads that a [`LoadSpec`] describes, spread over several worker processes, and
//! [`Load::stop`] ends them all. Every thread keeps a count of what it got done in memory that all share, so
//! that a test can see that each kind advances and that none is starved: [`Load::progress`].
//!
//! # Processes
//! Workers are fresh executions of this program (`/proc/self/exe`), because a process that has threads cannot
//! safely fork one that makes threads. So a program that starts a load calls [`run_if_worker`] first thing in
//! `main`; [`Load::start`] fails in a worker that came past it, instead of starting workers without end. A test,
//! which does not own its `main`, names another program in [`LoadSpec::program`].
//!
//! # How it ends
//! Each worker waits for the end of its standard input, whose other end this process holds: the kernel closes
//! that when this process ends, in whatever way. (`PR_SET_PDEATHSIG` would go by the *thread* that started the
//! worker, and end the load too early when that is a helper.) Children of the forkers do have it. A worker can
//! only be waited for once all of its threads are gone, so nothing is left when [`Load::stop`] returns.

mod limits;
mod progress;
mod rng;
mod roles;
mod shared;
mod spec;
mod thread;
mod worker;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use limits::raise as raise_limits;
pub use progress::{KindProgress, Progress};
use shared::{Shared, State};
pub use spec::{Kind, LoadSpec};
pub use worker::run_if_worker;

/// How often the state of the workers is looked at while they start and end.
const POLL: Duration = Duration::from_millis(20);

/// How long the workers get to end before they are killed. Long, because an emulated machine takes its time to
/// tear down 40,000 threads.
const END_WITHIN: Duration = Duration::from_secs(120);

/// Threads between two words on how far a load is.
const SAY_EVERY: usize = 5_000;

/// Puts up the mixed load with its limits raised, and says on the way how far it is.
///
/// # Errors
/// As [`Load::start_with`], or the limits cannot be raised.
pub fn put_up(threads: usize, say: impl Fn(&str)) -> Result<Load> {
    raise_limits(threads)?;
    say(&format!("putting up {threads} threads"));
    let (begun, mut said) = (Instant::now(), 0);
    let load = Load::start_with(LoadSpec::mixed(threads), |up| {
        if up >= said + SAY_EVERY {
            said = up - up % SAY_EVERY;
            say(&format!("  {up} up"));
        }
    })?;
    say(&format!("  {} live after {:.1} s", load.live()?, begun.elapsed().as_secs_f64()));
    Ok(load)
}

/// A load that is up. Dropping it ends it, as [`Load::stop`] does.
#[derive(Debug)]
pub struct Load {
    spec: LoadSpec,
    shared: Shared,
    workers: Vec<Child>,
}

impl Load {
    /// Puts the load up and returns when every thread of it has run. See [`Load::start_with`].
    ///
    /// # Errors
    /// As [`Load::start_with`].
    pub fn start(spec: LoadSpec) -> Result<Self> {
        Self::start_with(spec, |_| {})
    }

    /// Puts the load up and returns when every thread of it has run. Meanwhile tells `progress`, some 50 times a
    /// second, how many threads have. The busy kinds begin when all are up.
    ///
    /// # Errors
    /// The spec does not add up; the machine's limits do not allow so many threads, or one could not be created
    /// (the message names the limits and what they stand at); a worker could not be started, or died.
    /// Whatever was started is ended.
    pub fn start_with(spec: LoadSpec, mut progress: impl FnMut(usize)) -> Result<Self> {
        if std::env::var_os(worker::PLAN).is_some() {
            bail!("this is a worker of a load: its program must call load::run_if_worker() first in main");
        }
        let shares = spec.shares()?;
        limits::check(spec.threads)?;
        let shared = Shared::create(&spec, shares.len()).context("shared memory for the load's counters")?;
        // From here on, dropping it on an early return ends what was started.
        let mut load = Self { spec, shared, workers: Vec::with_capacity(shares.len()) };
        for index in 0..shares.len() {
            load.workers.push(load.spawn_worker(index)?);
        }
        loop {
            let up = load.shared.up();
            progress(up);
            if up >= load.spec.threads {
                break;
            }
            load.check_workers()?;
            std::thread::sleep(POLL);
        }
        load.shared.go();
        Ok(load)
    }

    /// Live threads of the load now, from `/proc`: [`LoadSpec::threads`] and those that the spawners have in
    /// flight. Children of the forkers are not counted.
    ///
    /// # Errors
    /// A worker has died.
    pub fn live(&self) -> Result<usize> {
        self.pids()
            .map(|pid| crate::tasks::threads_of(pid).with_context(|| format!("worker {pid} of the load")))
            .sum()
    }

    /// The worker processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(Child::id)
    }

    /// What was asked for.
    pub fn spec(&self) -> &LoadSpec {
        &self.spec
    }

    /// What each kind has done, and its worst-served thread. Reads one cell per thread.
    pub fn progress(&self) -> Progress {
        Progress::read(&self.spec, &self.shared)
    }

    /// Work done so far by all threads of `kind`, in that kind's unit (see [`Kind`]).
    pub fn ops(&self, kind: Kind) -> u64 {
        self.progress().of(kind).ops
    }

    /// Ends every thread and process of the load and waits until they are gone.
    ///
    /// # Errors
    /// A worker had died before, or did not end by itself and was killed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn spawn_worker(&self, index: usize) -> Result<Child> {
        let program = self.spec.program.as_deref().unwrap_or(Path::new("/proc/self/exe"));
        let plan = worker::Plan { spec: self.spec.clone(), index, shared: self.shared.path() };
        Command::new(program)
            .arg0("load-worker")
            .env(worker::PLAN, serde_json::to_string(&plan)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started as a worker of the load", program.display()))
    }

    /// Fails when a worker has reported a failure or ended.
    fn check_workers(&mut self) -> Result<()> {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            // In this order: a worker says why it fails before it ends.
            let ended = worker.try_wait()?;
            if let State::Failed { errno } = self.shared.state(index) {
                bail!(limits::explain(errno, self.shared.up(), self.spec.threads));
            }
            if let Some(status) = ended {
                bail!("a worker of the load ended: {status}");
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let mut workers = std::mem::take(&mut self.workers);
        if workers.is_empty() {
            return Ok(());
        }
        self.shared.quiesce();
        let deadline = Instant::now() + END_WITHIN;
        // Forkers wait for their children before their process ends, so that no orphan outlives the load.
        while self.shared.in_flight() > 0
            && Instant::now() < deadline
            && workers.iter_mut().all(|worker| matches!(worker.try_wait(), Ok(None)))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        for worker in &mut workers {
            drop(worker.stdin.take());
        }
        let mut outcome = Ok(());
        for worker in &mut workers {
            match wait_until(worker, deadline) {
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => {
                    outcome = Err(anyhow::anyhow!("a worker of the load ended early: {status}"))
                }
                Ok(None) => {
                    worker.kill()?;
                    worker.wait()?;
                    outcome = Err(anyhow::anyhow!("a worker of the load did not end in time and was killed"));
                }
                Err(error) => outcome = Err(error).context("waiting for a worker of the load"),
            }
        }
        outcome
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nobody is left to tell; after `stop` there is nothing to do.
        let _ = self.end();
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= deadline {
            return Ok(ended);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

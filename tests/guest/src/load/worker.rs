//! A worker process of a load: creates the threads of its share and then waits to be ended.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::roles::Stage;
use super::shared::Shared;
use super::spec::{LoadSpec, Share};
use super::thread::Thread;

/// The environment variable that makes a process a worker, and tells it its [`Plan`].
pub(super) const PLAN: &str = "GUEST_LOAD_WORKER";

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) spec: LoadSpec,
    /// Which worker it is.
    pub(super) index: usize,
    /// The shared memory.
    pub(super) shared: PathBuf,
}

/// In a process that was started as a worker of a load: works, and does not return. In any other: returns at once.
/// To be called first in `main`, before there are other threads.
pub fn run_if_worker() {
    let Some(plan) = std::env::var_os(PLAN) else { return };
    let code = match run(&plan.to_string_lossy()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("load worker: {error:#}");
            1
        }
    };
    // Not `exit`: its handlers would run beside thousands of threads that still use what they tear down.
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

fn run(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("its plan")?;
    let shares = plan.spec.shares()?;
    let share = shares.get(plan.index).context("no such share")?.clone();
    let shared = Shared::open(&plan.shared, &plan.spec, shares.len()).context("the shared memory")?;
    // Its threads use them until the process ends.
    let stage = Stage { spec: Box::leak(Box::new(plan.spec)), shared: Box::leak(Box::new(shared)) };
    // Threads take over the name of the one that makes them.
    // SAFETY: the name is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"load-sleep".as_ptr()) };
    match create(stage, &share) {
        Ok(()) => stage.shared.add_up(),
        // The starter reads this and ends the load; it says more about it than could be said here.
        Err(error) => stage.shared.fail(plan.index, error.raw_os_error().unwrap_or(libc::EIO)),
    }
    let mut end = io::stdin().lock();
    while end.read(&mut [0; 64])? > 0 {}
    Ok(())
}

fn create(stage: Stage, share: &Share) -> io::Result<()> {
    let stack = stage.spec.stack_bytes;
    for index in share.sleep.clone() {
        Thread::spawn(stack, move || stage.sleep(index))?;
    }
    for index in share.cpu.clone() {
        Thread::spawn(stack, move || stage.cpu(index))?;
    }
    for index in share.pair.clone() {
        let ((from_pong, to_ping), (from_ping, to_pong)) = (pipe()?, pipe()?);
        Thread::spawn(stack, move || stage.ping(index, to_pong, from_pong))?;
        Thread::spawn(stack, move || stage.pong(index, to_ping, from_ping))?;
    }
    for index in share.fork.clone() {
        Thread::spawn(stack, move || stage.fork(index))?;
    }
    for index in share.spawn.clone() {
        Thread::spawn(stack, move || stage.spawn(index))?;
    }
    Ok(())
}

/// A pipe: the end to read from and the end to write to.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made and belong to nobody else.
    Ok(ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) })).into())
}

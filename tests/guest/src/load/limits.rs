//! The limits that tens of thousands of threads run into.

use std::fs;
use std::io;

use anyhow::{Context as _, Result, bail};

/// Tasks that the rest of the system, and children in flight, may need on top of a load.
const ROOM: u64 = 1_000;

const PID_MAX: &str = "kernel/pid_max";
const THREADS_MAX: &str = "kernel/threads-max";
const MAX_MAP_COUNT: &str = "vm/max_map_count";

/// Mappings that one thread takes at most, its stack and the guard page below; doubled.
const MAPS_PER_THREAD: u64 = 4;

/// Raises the limits so that a load of `threads` fits; takes root. Limits that are high enough stay.
///
/// That is `kernel.pid_max`, `kernel.threads-max`, `vm.max_map_count` (for the case that one process has all the
/// threads) and this process's `RLIMIT_NPROC`, which its workers inherit.
///
/// # Errors
/// A limit cannot be read or set.
pub fn raise(threads: usize) -> Result<()> {
    let tasks = threads as u64 + crate::tasks::live_threads()? as u64 + 2 * ROOM;
    for (knob, least) in [
        (PID_MAX, tasks.next_power_of_two().max(32_768)),
        (THREADS_MAX, tasks),
        (MAX_MAP_COUNT, tasks * MAPS_PER_THREAD),
    ] {
        if read(knob)? < least {
            fs::write(path(knob), least.to_string())
                .with_context(|| format!("{} could not be set to {least}", path(knob)))?;
        }
    }
    let (soft, hard) = nproc();
    if soft < tasks {
        let limit = libc::rlimit { rlim_cur: tasks, rlim_max: hard.max(tasks) };
        // SAFETY: `limit` is valid for the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limit) } != 0 {
            return Err(io::Error::last_os_error()).context("RLIMIT_NPROC could not be raised");
        }
    }
    Ok(())
}

/// Finds out before anything is started whether so many threads cannot be.
pub(super) fn check(threads: usize) -> Result<()> {
    let tasks = threads as u64 + crate::tasks::live_threads()? as u64;
    for (knob, of) in [(PID_MAX, "thread ids"), (THREADS_MAX, "threads")] {
        let limit = read(knob)?;
        if limit < tasks + ROOM {
            bail!(
                "{threads} more threads do not fit: {} of {limit} allows for fewer {of} than {tasks} and {ROOM} \
                 to spare. Raise it: sysctl -w {}={}",
                knob.replace('/', "."),
                knob.replace('/', "."),
                (tasks + 2 * ROOM).next_power_of_two(),
            );
        }
    }
    Ok(())
}

/// Why a thread could not be created when `up` of `wanted` were there, with all limits that can be the cause: the
/// kernel answers `EAGAIN` for most of them, and pthreads turns `ENOMEM` into `EAGAIN` too.
pub(super) fn explain(errno: i32, up: usize, wanted: usize) -> String {
    let shown = |knob: &str| match read(knob) {
        Ok(value) => format!("{} = {value}", knob.replace('/', ".")),
        Err(_) => knob.replace('/', "."),
    };
    let live = crate::tasks::live_threads().map_or_else(|_| "?".to_owned(), |count| count.to_string());
    let (soft, _) = nproc();
    let nproc = if soft == libc::RLIM_INFINITY { "unlimited".to_owned() } else { soft.to_string() };
    format!(
        "a thread could not be created with {up} of {wanted} up and {live} on the system: {}. What limits them: {}, \
         {}, RLIMIT_NPROC (ulimit -u) = {nproc} for all of this user's, pids.max of the control group, {} for the \
         mappings of one process (2 a thread; more processes help), memory (some 40 KiB a thread; available: {}).",
        io::Error::from_raw_os_error(errno),
        shown(PID_MAX),
        shown(THREADS_MAX),
        shown(MAX_MAP_COUNT),
        available().unwrap_or_else(|| "?".to_owned()),
    )
}

fn path(knob: &str) -> String {
    format!("/proc/sys/{knob}")
}

fn read(knob: &str) -> Result<u64> {
    let path = path(knob);
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.trim().parse().with_context(|| format!("{path}: not a number"))
}

/// This process's limit on the threads of its user, soft and hard.
fn nproc() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result, and this limit always exists.
    unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

fn available() -> Option<String> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    Some(info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_refused_with_the_knob_to_turn() {
        check(10).unwrap();
        let error = check(500_000_000).unwrap_err().to_string();
        assert!(
            error.contains("kernel.pid_max of ") && error.contains("sysctl -w kernel.pid_max="),
            "{error}"
        );
    }

    #[test]
    fn a_failure_names_every_limit() {
        let text = explain(libc::EAGAIN, 7, 40_000);
        for part in
            ["7 of 40000", "Resource temporarily", "pid_max = ", "threads-max = ", "NPROC", "map_count = "]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

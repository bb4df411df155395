//! What the kernel says of its tasks: thread counts from `/proc`, and the state of sched_ext.

use std::fs;
use std::io;

/// Live threads on the whole system, kernel threads included: the sum of `Threads:` over `/proc/*/status`.
///
/// One small read per process, not one directory entry per thread, so it stays cheap with 40,000 threads in a
/// few processes. Processes that end meanwhile are left out. It is not a snapshot: the count is off by whatever
/// was created or ended during the walk.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn live_threads() -> io::Result<usize> {
    let mut total = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            total += threads_of(pid).unwrap_or(0);
        }
    }
    Ok(total)
}

/// Live threads of process `pid`, from `Threads:` in its status. A process that ended but was not yet waited
/// for counts as 1 at most.
///
/// # Errors
/// There is no such process, or its status has no such line.
pub fn threads_of(pid: u32) -> io::Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/status: no Threads")))
}

/// What `/sys/kernel/sched_ext` says.
pub mod sched_ext {
    use std::fs;
    use std::io;

    const ROOT: &str = "/sys/kernel/sched_ext";

    /// The state of sched_ext as the kernel words it: `enabled`, `disabled`, `enabling` or `disabling`.
    ///
    /// # Errors
    /// The file cannot be read; `NotFound` on a kernel without sched_ext.
    pub fn state() -> io::Result<String> {
        line("state")
    }

    /// How many times a scheduler was enabled since boot. An in-place upgrade leaves it as it was.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold a number.
    pub fn enable_seq() -> io::Result<u64> {
        line("enable_seq")?.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The name of the scheduler that runs, or `None` while there is none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn ops() -> io::Result<Option<String>> {
        match line("root/ops") {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn line(file: &str) -> io::Result<String> {
        Ok(fs::read_to_string(format!("{ROOT}/{file}"))?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_thread_is_counted() {
        let own = std::process::id();
        let (up, is_up) = std::sync::mpsc::channel::<()>();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            up.send(()).unwrap();
            may_end.recv().ok();
        });
        is_up.recv().unwrap();
        let here = threads_of(own).unwrap();
        assert!(here >= 2);
        // Other tests' threads come and go, but this one and the main thread are there throughout.
        assert!(live_threads().unwrap() >= 2);
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn no_such_process_is_an_error() {
        assert!(threads_of(u32::MAX).is_err());
    }
}

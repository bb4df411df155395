//! The `scx-upgrade` command that started this policy's process, at the other end of the descriptor that the process reports on.
//!
//! The command may end before this process took over: by a signal, or killed. Then nothing may change afterwards. The other end
//! of the descriptor tells: the command shuts it down when a signal interrupts it, and the kernel closes it when the command dies.
//!
//! - While nothing has changed, a thread waits for that, reports, and ends the process at once: the verifier may take long.
//! - From the first change on ([`change`]) the thread leaves the process alone, and the process itself looks right before the
//!   commit ([`Change::decide`]). From there on what was begun is done, and reported.
//!
//! A process that was started by hand has no launcher, and nothing here does anything.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::thread;

use crate::error::Error;
use crate::error::Result;
use crate::run::Outcome;
use crate::run::REPORT_FD;

/// The descriptor, while this process has one.
static LAUNCHER: OnceLock<OwnedFd> = OnceLock::new();
/// Held while something is changed. The value: is it decided how this ends?
static DECIDED: Mutex<bool> = Mutex::new(false);

/// Take the descriptor that the environment names, and begin to watch it. `interrupted`: what is still to be done before the
/// process ends.
pub(crate) fn connect(interrupted: impl FnOnce() + Send + 'static) {
    let Some(fd) = std::env::var(REPORT_FD).ok().and_then(|fd| fd.parse::<RawFd>().ok()) else { return };
    // SAFETY: no memory is involved. It fails where the environment names a descriptor that is not open.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return;
    }
    // SAFETY: the command opened this descriptor for this process alone, and nothing else in it takes it.
    let _ = LAUNCHER.set(unsafe { OwnedFd::from_raw_fd(fd) });
    let watch = move || {
        while !is_gone(-1) {}
        let mut decided = lock();
        if !*decided {
            *decided = true;
            interrupted();
            write(&Outcome::failed(&Error::Interrupted));
            // SAFETY: nothing is left to be done: the kernel frees what was loaded, and drops the lock.
            unsafe { libc::_exit(Error::Interrupted.exit_code().into()) }
        }
    };
    if let Err(e) = thread::Builder::new().name("launcher".to_string()).spawn(watch) {
        log::debug!("an interrupted command is noticed before the commit only: {e}");
    }
}

/// Tell the launcher how it ended, if there is one.
pub(crate) fn report(outcome: &Outcome) {
    *lock() = true;
    write(outcome);
}

/// Something is changed from now on, until the result is dropped.
///
/// # Errors
/// [`Error::Interrupted`]: nothing may be changed any more.
pub(crate) fn change() -> Result<Change> {
    let decided = lock();
    wanted()?;
    Ok(Change { decided })
}

/// See [`change`].
#[derive(Debug)]
pub(crate) struct Change {
    decided: MutexGuard<'static, bool>,
}

impl Change {
    /// The commit is next: after this it is done and reported, whatever becomes of the launcher.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: it may not be done any more.
    pub(crate) fn decide(&mut self) -> Result<()> {
        wanted()?;
        *self.decided = true;
        Ok(())
    }
}

fn wanted() -> Result<()> {
    if is_gone(0) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Has the launcher ended, or shut down its end? Waits so long for that, ms; without limit if negative.
fn is_gone(timeout: libc::c_int) -> bool {
    let Some(fd) = LAUNCHER.get() else { return false };
    // A launcher of an earlier version has the reading end of a pipe, which shows as POLLERR when it is closed.
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `poll` is one pollfd, and is ours.
    let ready = unsafe { libc::poll(&mut poll, 1, timeout) };
    ready == 1 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

fn write(outcome: &Outcome) {
    let copy = LAUNCHER.get().and_then(|fd| fd.try_clone().ok());
    let (Some(fd), Ok(json)) = (copy, serde_json::to_string(outcome)) else { return };
    // A launcher that is gone does not read it.
    let _ = File::from(fd).write_all(format!("{json}\n").as_bytes());
}

fn lock() -> MutexGuard<'static, bool> {
    DECIDED.lock().unwrap_or_else(PoisonError::into_inner)
}

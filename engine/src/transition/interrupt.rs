//! What a signal does to a command that changes the scheduler.
//!
//! - While nothing has changed, the command ends at once: the verifier may take long.
//! - From the first change on (`change()`) the command goes on, and looks right before the commit (`Change::decide()`) whether
//!   a signal came. From there on it finishes what it began, and reports it.
//!
//! The thread that catches the signals calls [`request`].

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::error::Result;

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// Held while something changes. The value: is it decided how this ends?
static DECIDED: Mutex<bool> = Mutex::new(false);

/// Held by who ends the process: the command can begin no change meanwhile, and so says nothing of its own.
#[derive(Debug)]
pub struct Ending {
    _decided: MutexGuard<'static, bool>,
}

/// A signal came. Waits while something changes. Some: the command ends without a commit, and the caller ends the process while it
/// holds this; none: the commit is done, or the command has found out by itself.
pub fn request() -> Option<Ending> {
    REQUESTED.store(true, Ordering::SeqCst);
    let mut decided = lock();
    if std::mem::replace(&mut *decided, true) {
        // Too late, and no reason for a later change of this process to fail.
        REQUESTED.store(false, Ordering::SeqCst);
        return None;
    }
    Some(Ending { _decided: decided })
}

/// The command has ended: a signal that comes from now on is too late.
pub fn finished() {
    *lock() = true;
    REQUESTED.store(false, Ordering::SeqCst);
}

/// Simulates a signal, without a thread that catches it.
#[cfg(test)]
pub(crate) fn signal() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Another command begins.
#[cfg(test)]
pub(crate) fn begin() {
    REQUESTED.store(false, Ordering::SeqCst);
    *lock() = false;
}

/// Something changes from now on, until the result is dropped.
///
/// # Errors
/// [`Error::Interrupted`]: nothing may be changed any more.
pub(crate) fn change() -> Result<Change> {
    let mut decided = lock();
    wanted(&mut decided)?;
    Ok(Change { decided })
}

/// See [`change`].
#[derive(Debug)]
pub(crate) struct Change {
    decided: MutexGuard<'static, bool>,
}

impl Change {
    /// The commit is next: after this it is done and reported, whatever signals come.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: it may not be done any more.
    pub(crate) fn decide(&mut self) -> Result<()> {
        wanted(&mut self.decided)?;
        *self.decided = true;
        Ok(())
    }
}

fn wanted(decided: &mut bool) -> Result<()> {
    if REQUESTED.load(Ordering::SeqCst) {
        *decided = true;
        return Err(Error::Interrupted);
    }
    Ok(())
}

fn lock() -> MutexGuard<'static, bool> {
    DECIDED.lock().unwrap_or_else(PoisonError::into_inner)
}

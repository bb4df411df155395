//! Loading and verifying a policy is hundreds of milliseconds of CPU time that nobody waits for: let everybody else go
//! first meanwhile.

use crate::error::Result;
use crate::urgent;

const NICEST: i32 = 19;

/// Run `f` with this thread at the lowest priority of the normal class, however urgent it is otherwise.
///
/// # Errors
/// Those of `f`. A priority that cannot be changed is no error: it only takes longer for others.
pub(crate) fn politely<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _class = urgent::normal();
    // SAFETY: 0 names the calling thread; no memory is involved.
    let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
    let result = f();
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, before) };
    result
}

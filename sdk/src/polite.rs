//! Loading and verifying a policy is hundreds of milliseconds of CPU time that nobody waits for: let everybody else go
//! first meanwhile.

use crate::urgent;

const NICEST: i32 = 19;
const LEAST_NICE: i32 = -20;

/// Run `f` with this thread at the lowest priority of the normal class, however urgent it is otherwise. Threads that it starts
/// are so too, and stay so.
///
/// A priority that cannot be changed is no error: it only takes longer for others.
pub(crate) fn politely<T>(f: impl FnOnce() -> T) -> T {
    at(NICEST, f)
}

/// The same at its highest priority: before all others as far as the policy that runs goes by that, and not above it.
pub(crate) fn eagerly<T>(f: impl FnOnce() -> T) -> T {
    at(LEAST_NICE, f)
}

fn at<T>(nice: i32, f: impl FnOnce() -> T) -> T {
    let _class = urgent::normal();
    // SAFETY: 0 names the calling thread; no memory is involved.
    let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    let result = f();
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, before) };
    result
}

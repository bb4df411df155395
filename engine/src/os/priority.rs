//! Loading and verifying a policy is hundreds of milliseconds of CPU time that nobody waits for: let everybody else go
//! first meanwhile.

use crate::os::realtime;

/// So much nicer than whoever runs the command has it. A tenth of the weight: on a machine that is full to the brim it ends, and
/// who runs the command above others has a say in how soon.
const NICER: i32 = 10;
const LEAST_NICE: i32 = -20;

/// Run `f` with this thread in the normal class, and ten steps nicer than it is, however urgent it is otherwise. Threads that it
/// starts are so too, and stay so.
///
/// A priority that cannot be changed is no error: it only takes longer for others.
pub(crate) fn lowered<T>(f: impl FnOnce() -> T) -> T {
    let _class = realtime::normal();
    // SAFETY: 0 names the calling thread; no memory is involved.
    let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, before + NICER) };
    let result = f();
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, before) };
    result
}

/// From now on this thread is in the normal class, and before all others there as far as the policy that runs goes by that.
pub(crate) fn raise() {
    realtime::be_normal();
    // SAFETY: 0 names the calling thread; no memory is involved.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST_NICE) };
}

//! Lost tasks: runnable, and on no DSQ. A policy keeps them in a map of its own, or has lost them, and the next policy does not
//! know of them. A change of a task's nice value makes the kernel dequeue and enqueue it (`set_user_nice()`,
//! kernel/sched/syscalls.c), so the running policy gets it.

use std::io;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;

use crate::error::Result;
use crate::error::Trying;
use crate::host::names::LOST_TASKS;
use crate::host::pins::Pins;
use crate::kernel::bpf;

/// The host's program that finds them.
pub(crate) const PROGRAM: &str = "find_lost_tasks";
/// How often to look, at most: the list is bounded.
const LOOKS: u32 = 16;
/// The weakest nice value.
const WEAKEST: i32 = 19;

/// Makes the kernel re-enqueue every task that is on no queue, and returns how many there were. Costs a walk over all tasks.
///
/// # Errors
/// The host's program cannot be run. Tasks that cannot be re-enqueued, because they are gone, are no error.
pub(crate) fn rescue(pins: &Pins) -> Result<u64> {
    let mut rescued = 0;
    if !pins.program_path(PROGRAM).exists() {
        // A host that an earlier version started.
        return Ok(0);
    }
    let program = pins.program(PROGRAM)?;
    let list = pins.map(LOST_TASKS)?;
    for _ in 0..LOOKS {
        let found = bpf::run(&program, PROGRAM, &mut 0_u64)?;
        let found = usize::try_from(found).unwrap_or(0);
        if found == 0 {
            break;
        }
        let bytes = list.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).trying("cannot read which tasks wait")?;
        let bytes = bytes.unwrap_or_default();
        // The first word is the count.
        let pids =
            bytes.chunks_exact(4).skip(1).map(|pid| u32::from_ne_bytes(pid.try_into().unwrap_or_default()));
        let listed = (bytes.len() / 4).saturating_sub(1);
        rescued += pids.take(found).filter(|pid| requeue_lost_task(*pid).is_ok()).count() as u64;
        if found <= listed {
            break;
        }
    }
    Ok(rescued)
}

fn requeue_lost_task(tid: u32) -> io::Result<()> {
    // SAFETY: a number of this thread's own.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: no memory is involved. -1 is also a nice value, so errno tells.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, tid) };
    let error = io::Error::last_os_error();
    if nice == -1 && error.raw_os_error() != Some(0) {
        return Err(error);
    }
    let other = if nice == WEAKEST { nice - 1 } else { nice + 1 };
    for value in [other, nice] {
        // SAFETY: no memory is involved.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, value) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

//! Runs this thread as SCHED_FIFO, at the lowest priority, above sched_ext. Otherwise the policy that the command replaces could
//! starve the command.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use log::debug;

/// The lowest of the real-time class.
const LOWEST: libc::c_int = 1;

/// Whether threads and processes that are started meanwhile are as urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// They are: they are part of the work.
    Too,
    /// They are not.
    No,
}

/// This thread is urgent for as long as this lives. Where it may not be, in a cgroup without real-time for example, it goes
/// on as it is.
#[derive(Debug)]
pub struct RealtimeGuard {
    before: Option<(libc::c_int, libc::sched_param)>,
    refused: Option<io::Error>,
}

impl RealtimeGuard {
    /// From now on.
    pub fn begin(children: Children) -> RealtimeGuard {
        let flag = if children == Children::No { libc::SCHED_RESET_ON_FORK } else { 0 };
        // One that is in such a class already stays there.
        RealtimeGuard::change(|priority| (priority == 0).then_some((libc::SCHED_FIFO | flag, LOWEST)))
    }

    /// Nothing changes.
    #[cfg(test)]
    pub(crate) fn none() -> RealtimeGuard {
        RealtimeGuard { before: None, refused: None }
    }

    fn change(to: impl FnOnce(libc::c_int) -> Option<(libc::c_int, libc::c_int)>) -> RealtimeGuard {
        match change(to) {
            Ok(before) => RealtimeGuard { before, refused: None },
            Err(refused) => RealtimeGuard { before: None, refused: Some(refused) },
        }
    }

    /// What the operator is to know where the kernel refused the class.
    pub fn warning(&self) -> Option<String> {
        let refused = self.refused.as_ref()?;
        Some(format!(
            "the kernel refused this command the class SCHED_FIFO ({refused}), so a policy that starves it can delay its end. \
             Give it CAP_SYS_NICE; a systemd unit must not have RestrictRealtime=yes"
        ))
    }
}

/// Not urgent for as long as what this gives lives, if it is.
pub(crate) fn normal() -> RealtimeGuard {
    RealtimeGuard::change(|priority| (priority != 0).then_some((libc::SCHED_OTHER, 0)))
}

/// Not urgent from now on.
pub(crate) fn be_normal() {
    std::mem::forget(normal());
}

/// Is this thread in a class above sched_ext?
pub(crate) fn is_realtime() -> bool {
    // SAFETY: 0 names the calling thread; no memory is involved.
    let class = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
    [libc::SCHED_FIFO, libc::SCHED_RR].contains(&class)
}

/// From now on `thread` is in the lowest real-time class, if this one is urgent.
pub(crate) fn promote_to_fifo(thread: &JoinHandle<()>) {
    if !is_realtime() {
        return;
    }
    let param = libc::sched_param { sched_priority: LOWEST };
    // SAFETY: who has the handle has not joined the thread, so its name is good; and `param` is readable.
    let errno = unsafe { libc::pthread_setschedparam(thread.as_pthread_t(), libc::SCHED_FIFO, &param) };
    if errno != 0 {
        debug!("a thread goes on as it is: {}", std::io::Error::from_raw_os_error(errno));
    }
}

/// Put this thread into the class and at the priority that `to` gives for its present priority, if it gives one; what it was
/// before, if it was changed. An error: the kernel refuses it.
fn change(
    to: impl FnOnce(libc::c_int) -> Option<(libc::c_int, libc::c_int)>,
) -> io::Result<Option<(libc::c_int, libc::sched_param)>> {
    // SAFETY: 0 names the calling thread; no memory is involved.
    let class = unsafe { libc::sched_getscheduler(0) };
    let mut before = libc::sched_param { sched_priority: 0 };
    // SAFETY: `before` is ours.
    let known = class >= 0 && unsafe { libc::sched_getparam(0, &mut before) } == 0;
    let Some((class_to, priority)) = known.then(|| to(before.sched_priority)).flatten() else {
        return Ok(None);
    };
    if set(class_to, &libc::sched_param { sched_priority: priority }) {
        return Ok(Some((class, before)));
    }
    let refused = io::Error::last_os_error();
    debug!("this goes on in the class that it is in: {refused}");
    Err(refused)
}

impl Drop for RealtimeGuard {
    fn drop(&mut self) {
        if let Some((class, param)) = &self.before {
            set(*class, param);
        }
    }
}

fn set(class: libc::c_int, param: &libc::sched_param) -> bool {
    // SAFETY: 0 names the calling thread, and `param` is readable.
    unsafe { libc::sched_setscheduler(0, class, param) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> libc::c_int {
        // SAFETY: 0 names the calling thread; no memory is involved.
        unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
    }

    #[test]
    fn it_ends_as_it_began() {
        let before = class();
        let urgent = RealtimeGuard::begin(Children::No);
        // Who may not runs on as before; both are right.
        assert!([before, libc::SCHED_FIFO].contains(&class()));
        let begun = class();
        drop(normal());
        assert_eq!(class(), begun);
        drop(urgent);
        assert_eq!(class(), before);
    }
}

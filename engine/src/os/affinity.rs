//! Which CPUs threads may be on.

use std::mem;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use log::debug;

/// This thread stays on the CPU that it is on for as long as this lives.
#[derive(Debug)]
pub(crate) struct PinnedToCpu {
    cpu: usize,
    before: libc::cpu_set_t,
}

impl PinnedToCpu {
    /// From now on. None where it cannot be had: the thread goes on as it is.
    pub fn begin() -> Option<PinnedToCpu> {
        // SAFETY: no memory is involved.
        let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
        let mut before = no_cpus();
        // SAFETY: 0 names the calling thread; `before` is ours, and as large as is said.
        let known = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&before), &mut before) } == 0;
        // With more CPUs than the set has room for the kernel says nothing, and there is nothing to go back to.
        if !known || cpu >= libc::CPU_SETSIZE as usize {
            return None;
        }
        let mut only = no_cpus();
        // SAFETY: `cpu` is within the set.
        unsafe { libc::CPU_SET(cpu, &mut only) };
        set(&only).then_some(PinnedToCpu { cpu, before })
    }

    /// `thread` may be on any CPU that this thread could be on but this one, unless there is no other.
    pub fn exclude_cpu(&self, thread: &JoinHandle<()>) {
        let mut others = self.before;
        // SAFETY: `cpu` is within the set.
        unsafe { libc::CPU_CLR(self.cpu, &mut others) };
        // SAFETY: `others` is ours.
        if unsafe { libc::CPU_COUNT(&others) } == 0 {
            return;
        }
        // SAFETY: who has the handle has not joined the thread, so its name is good; `others` is as large as is said.
        let errno = unsafe {
            libc::pthread_setaffinity_np(thread.as_pthread_t(), mem::size_of_val(&others), &others)
        };
        if errno != 0 {
            debug!("a thread may be on any CPU: {}", std::io::Error::from_raw_os_error(errno));
        }
    }
}

impl Drop for PinnedToCpu {
    fn drop(&mut self) {
        set(&self.before);
    }
}

fn no_cpus() -> libc::cpu_set_t {
    // SAFETY: an array of integers, for which zeros are good.
    unsafe { mem::zeroed() }
}

fn set(cpus: &libc::cpu_set_t) -> bool {
    // SAFETY: 0 names the calling thread; `cpus` is readable, and as large as is said.
    let done = unsafe { libc::sched_setaffinity(0, mem::size_of_val(cpus), cpus) } == 0;
    if !done {
        debug!("this thread may be on any CPU: {}", std::io::Error::last_os_error());
    }
    done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn may_be_on() -> Vec<usize> {
        let mut cpus = no_cpus();
        // SAFETY: as in `PinnedToCpu::begin()`.
        assert_eq!(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&cpus), &mut cpus) }, 0);
        // SAFETY: all of these are within the set.
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &cpus) }).collect()
    }

    #[test]
    fn one_stays_and_the_other_keeps_off_until_it_ends() {
        let before = may_be_on();
        let (go_on, wait) = channel();
        let thread = thread::spawn(move || wait.recv().map(|found| assert_eq!(may_be_on(), found)).unwrap());
        let stay = PinnedToCpu::begin().unwrap();
        assert_eq!(may_be_on(), [stay.cpu]);
        stay.exclude_cpu(&thread);
        let others: Vec<_> = before.iter().copied().filter(|cpu| *cpu != stay.cpu).collect();
        go_on.send(if others.is_empty() { before.clone() } else { others }).unwrap();
        thread.join().unwrap();
        drop(stay);
        assert_eq!(may_be_on(), before);
    }
}

//! Threads with small stacks, made straight from pthreads.
//!
//! `std::thread` also maps, protects and registers a signal stack for each thread: four mappings instead of two
//! (`vm.max_map_count` is spent at half the threads), and in an emulator a fifth to twice as much time.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Enough for any role, and for the least that pthreads wants on machines with large vector registers. Only the
/// page or two that a thread touches take memory.
const MIN_STACK: usize = 32 << 10;

/// A thread. Dropped without a join, it is left to itself.
#[derive(Debug)]
pub(super) struct Thread(libc::pthread_t);

type Entry = Box<dyn FnOnce() + Send>;

impl Thread {
    /// Starts a thread that runs `entry`. A panic in it ends the process.
    ///
    /// # Errors
    /// The system's, with its number: mostly `EAGAIN`, for want of anything (see the module `limits`).
    pub(super) fn spawn(stack_bytes: usize, entry: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the place is valid, and initialised by this call before any other use.
        check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
        let argument = Box::into_raw(Box::new(Box::new(entry) as Entry));
        let mut id = 0;
        // SAFETY: the attributes are initialised. `main` takes the argument over, once, if and only if a thread
        // is created.
        let made = unsafe {
            let size = stack_bytes.max(MIN_STACK).next_multiple_of(4096);
            let mut made = libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), size);
            if made == 0 {
                made = libc::pthread_create(&mut id, attributes.as_ptr(), main, argument.cast());
            }
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            made
        };
        if made != 0 {
            // SAFETY: no thread has it.
            drop(unsafe { Box::from_raw(argument) });
        }
        check(made).map(|()| Self(id))
    }

    /// Waits for its end.
    pub(super) fn join(self) {
        // SAFETY: the thread was neither joined nor detached: both take `self`.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
        std::mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `join`.
        unsafe { libc::pthread_detach(self.0) };
    }
}

extern "C" fn main(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` gave it, and gives it to this thread alone.
    let entry = unsafe { Box::from_raw(argument.cast::<Entry>()) };
    entry();
    ptr::null_mut()
}

fn check(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn runs_and_joins() {
        let count = Arc::new(AtomicU32::new(0));
        let threads: Vec<Thread> = (0..50)
            .map(|_| {
                let count = Arc::clone(&count);
                Thread::spawn(1, move || {
                    count.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap()
            })
            .collect();
        threads.into_iter().for_each(Thread::join);
        assert_eq!(count.load(Ordering::Relaxed), 50);
        assert_eq!(Arc::strong_count(&count), 1);
    }
}

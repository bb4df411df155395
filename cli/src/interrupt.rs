//! SIGINT, SIGTERM and SIGHUP while a policy's process loads: the command is not simply to die, but to make sure that nothing is
//! changed afterwards, and to say what became of it.

use std::io;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;

const SIGNALS: [(libc::c_int, &str); 3] =
    [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")];

/// Where the handler writes; -1 while nobody reads.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handler(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write() is async-signal-safe, and `byte` is readable. errno is restored for the code that the signal interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(PIPE.load(Ordering::Relaxed), ptr::from_ref(&byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Catches the signals until it is dropped. A signal that was ignored stays ignored.
#[derive(Debug)]
pub struct Interrupts {
    read: UnixStream,
    _write: UnixStream,
    before: Vec<(libc::c_int, Action)>,
    caught: Option<libc::c_int>,
}

struct Action(libc::sigaction);

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Action({:#x})", self.0.sa_sigaction)
    }
}

impl Interrupts {
    pub fn catch() -> io::Result<Interrupts> {
        let (read, write) = UnixStream::pair()?;
        // The handler is not to wait for room, nor `caught` for a signal.
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        let mut before = Vec::new();
        for (signal, _) in SIGNALS {
            if let Some(old) = install(signal) {
                before.push((signal, Action(old)));
            }
        }
        Ok(Interrupts { read, _write: write, before, caught: None })
    }

    /// Becomes readable with a signal.
    pub fn fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// The signal that came, by its name. From here on the next one acts as it did before.
    pub fn caught(&mut self) -> Option<&'static str> {
        let mut byte = [0];
        if !matches!((&self.read).read(&mut byte), Ok(1)) {
            return None;
        }
        let signal = libc::c_int::from(byte[0]);
        self.caught = Some(signal);
        self.release();
        SIGNALS.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
    }

    fn release(&mut self) {
        for (signal, Action(old)) in self.before.drain(..) {
            // SAFETY: `old` is what the kernel gave for this signal.
            unsafe { libc::sigaction(signal, &old, ptr::null_mut()) };
            // Someone else in this process waits for it too.
            if self.caught == Some(signal) && old.sa_sigaction != libc::SIG_DFL {
                // SAFETY: no memory is involved.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.release();
        PIPE.store(-1, Ordering::Relaxed);
    }
}

/// Handle `signal` here, unless it is ignored; how it was handled before.
fn install(signal: libc::c_int) -> Option<libc::sigaction> {
    // SAFETY: all zeroes is a value of sigaction: the default action, no flags, no signals blocked.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both point to values of their type; the handler makes async-signal-safe calls only.
    unsafe {
        if libc::sigaction(signal, ptr::null(), &mut old) != 0 || old.sa_sigaction == libc::SIG_IGN {
            return None;
        }
        (libc::sigaction(signal, &new, &mut old) == 0).then_some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_caught_once_and_then_acts_as_before() {
        let mut interrupts = Interrupts::catch().unwrap();
        assert_eq!(interrupts.caught(), None);
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGHUP) };
        assert_eq!(interrupts.caught(), Some("SIGHUP"));
        // SAFETY: all zeroes is a value of sigaction, and it is only written.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `now` is ours.
        unsafe { libc::sigaction(libc::SIGHUP, ptr::null(), &mut now) };
        assert_eq!(now.sa_sigaction, libc::SIG_DFL);
    }
}

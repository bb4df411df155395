//! SIGINT, SIGTERM and SIGHUP while a policy is put in charge: the command is not simply to die, but to make sure that nothing is
//! changed afterwards, and to say what became of it.

use std::io;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::thread;

use scx_upgrade_engine::transition::interrupt;

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
    write: UnixStream,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    before: Vec<(libc::c_int, Action)>,
    caught: Option<(libc::c_int, &'static str)>,
}

struct Action(libc::sigaction);

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Action({:#x})", self.0.sa_sigaction)
    }
}

impl Interrupts {
    /// `interrupted` is called where a signal comes in time: nothing is committed, and it ends the process.
    pub fn catch(interrupted: impl Fn(&'static str) + Send + 'static) -> io::Result<Interrupts> {
        let (read, write) = UnixStream::pair()?;
        // The handler is not to wait for room.
        write.set_nonblocking(true)?;
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        let state = Arc::new(Mutex::new(State::default()));
        let seen = state.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = wait(&read, &seen)
                && let Some(_ending) = interrupt::request()
            {
                interrupted(signal);
            }
        })?;
        for (signal, _) in SIGNALS {
            if let Some(old) = install(signal) {
                lock(&state).before.push((signal, Action(old)));
            }
        }
        Ok(Interrupts { write, state })
    }

    /// The signal that came, by its name.
    pub fn caught(&self) -> Option<&'static str> {
        lock(&self.state).caught.map(|(_, name)| name)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        lock(&self.state).release();
        PIPE.store(-1, Ordering::Relaxed);
        // The thread ends.
        let _ = self.write.shutdown(Shutdown::Both);
    }
}

impl State {
    /// From here on the next signal acts as it did before.
    fn release(&mut self) {
        for (signal, Action(old)) in self.before.drain(..) {
            // SAFETY: `old` is what the kernel gave for this signal.
            unsafe { libc::sigaction(signal, &old, ptr::null_mut()) };
            // Someone else in this process waits for it too.
            if self.caught.is_some_and(|(caught, _)| caught == signal) && old.sa_sigaction != libc::SIG_DFL {
                // SAFETY: no memory is involved.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

/// The first signal; none where nobody wants to know any more.
fn wait(mut read: &UnixStream, state: &Mutex<State>) -> Option<&'static str> {
    let mut byte = [0];
    read.read_exact(&mut byte).ok()?;
    let signal = libc::c_int::from(byte[0]);
    let caught = SIGNALS.iter().find(|(number, _)| *number == signal).copied()?;
    let mut state = lock(state);
    state.caught = Some(caught);
    log::warn!("{}: the command stops where nothing is changed yet", caught.1);
    state.release();
    Some(caught.1)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_signal_is_caught_once_and_then_acts_as_before() {
        // Under nohup it is ignored, and stays so.
        // SAFETY: no memory is involved.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let (tell, told) = mpsc::channel();
        let interrupts = Interrupts::catch(move |signal| tell.send(signal).unwrap()).unwrap();
        assert_eq!(interrupts.caught(), None);
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGHUP) };
        assert_eq!(told.recv().unwrap(), "SIGHUP");
        assert_eq!(interrupts.caught(), Some("SIGHUP"));
        // SAFETY: all zeroes is a value of sigaction, and it is only written.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `now` is ours.
        unsafe { libc::sigaction(libc::SIGHUP, ptr::null(), &mut now) };
        assert_eq!(now.sa_sigaction, libc::SIG_DFL);
    }
}

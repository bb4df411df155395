//! The frontend: the user-space half of a policy that runs. It reads maps and prints statistics, and changes nothing, so it may
//! end at any time; the policy runs on without it.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use scx_upgrade_protocol::Frontend;

use crate::Running;
use crate::running::Ended;
use crate::running::Error;

/// What `scx-upgrade` exits with where tasks are on the default scheduler because the kernel ejected the policy.
const EJECTED: u8 = 5;
const FAILED: u8 = 1;
/// The longest setup that makes sense, bytes.
const MAX_SETUP: u64 = 4 << 20;
const TICK: Duration = Duration::from_millis(100);

/// Stays until the policy is superseded, ejected or a signal comes.
pub(crate) fn run(descriptor: i32, stats: u64, statistics: impl FnMut(&Running)) -> ExitCode {
    let json = match read(descriptor) {
        // No commit came.
        Ok(json) if json.is_empty() => return ExitCode::SUCCESS,
        other => other,
    };
    let opened = json
        .and_then(|json| parse(&json))
        .and_then(|setup| Running::open(&setup).map(|running| (setup, running)));
    let (setup, running) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            print(io::stderr(), &format!("error: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    take_name(&setup.path);
    // SAFETY: the engine made this descriptor for this process, and nothing else in it uses the number.
    let link = setup.link.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let ended = stand_by(&running, stats, statistics);
    // The kernel detaches with the last reference; why the scheduler ended is known only then.
    let was_attached = link.is_some();
    drop(link);
    match ended.or_else(|| was_attached.then(|| running.wait_for_exit()).flatten()) {
        Some(Ended::Ejected(reason)) => {
            print(io::stderr(), &format!("error: the kernel ejected the scheduler: {reason}"));
            ExitCode::from(EJECTED)
        }
        Some(Ended::Superseded(why)) => {
            print(io::stdout(), &why);
            ExitCode::SUCCESS
        }
        None => ExitCode::SUCCESS,
    }
}

/// Waits until the engine has written everything and closed its end.
fn read(descriptor: i32) -> Result<String, Error> {
    // SAFETY: the engine made this descriptor for this process, and nothing else in it uses the number.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let mut json = String::new();
    file.take(MAX_SETUP)
        .read_to_string(&mut json)
        .map_err(|source| Error::Io { what: "cannot read what scx-upgrade says of the policy", source })?;
    Ok(json)
}

fn parse(json: &str) -> Result<Frontend, Error> {
    let setup: Frontend = serde_json::from_str(json).map_err(|e| Error::Setup { why: e.to_string() })?;
    // A program that the policy's own code starts must not keep the scheduler attached.
    for descriptor in setup.inherited.iter().chain(&setup.link) {
        // SAFETY: the engine made this descriptor for this process, and it stays open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(*descriptor) };
        let closed = fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        closed
            .map_err(|e| Error::Io { what: "cannot keep a descriptor to this process", source: e.into() })?;
    }
    Ok(setup)
}

/// Goes by the binary's name in `ps` and `top`: a program that is executed from a descriptor is called by its number.
fn take_name(path: &str) {
    if let Some(name) = Path::new(path).file_name() {
        // The kernel keeps the first 15 bytes.
        let _ = fs::write("/proc/self/comm", name.as_bytes());
    }
}

fn stand_by(running: &Running, stats: u64, mut statistics: impl FnMut(&Running)) -> Option<Ended> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    if let Err(e) = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)) {
        print(io::stderr(), &format!("warning: cannot handle Ctrl-C: {e}"));
    }
    // The engine held these back while it changed what runs.
    let held = SigSet::from_iter([
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGTSTP,
        Signal::SIGQUIT,
    ]);
    if let Err(e) = held.thread_unblock() {
        print(io::stderr(), &format!("warning: Ctrl-C is held back: {e}"));
    }
    let mut prints = stats > 0;
    for ticks in 1u64.. {
        thread::sleep(TICK);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        if ticks % 10 == 0
            && let Some(ended) = running.ended()
        {
            return Some(ended);
        }
        if prints && ticks % stats.saturating_mul(10) == 0 {
            prints = catch_unwind(AssertUnwindSafe(|| statistics(running))).is_ok();
            if !prints {
                print(io::stderr(), "warning: no more statistics: printing them panicked");
            }
        }
    }
    None
}

/// A line. `println!` panics where it cannot be written, and a frontend must not end for that.
fn print(mut to: impl Write, text: &str) {
    let _ = writeln!(to, "{text}").and_then(|()| to.flush());
}

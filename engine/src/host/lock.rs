//! One command at a time changes the scheduler: a lock on the folder of the pins. The kernel drops it with the process
//! that holds it, so it cannot be left over, and it says who holds it.

use std::fmt;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;

/// How long a command waits for another unless it is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks whether the other one is done.
const LOOK: Duration = Duration::from_millis(20);
/// What is shown of the command that holds the lock, in characters.
const SHOWN: usize = 80;

/// See the module. Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Lock `dir`, waiting for as long as `patience`.
    ///
    /// # Errors
    /// [`Error::Locked`] when someone else still has it then.
    pub(crate) fn take(dir: &Path, patience: Duration) -> Result<Lock> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(dir);
        let file = opened.trying(format!("cannot open {}", dir.display()))?;
        let deadline = Instant::now() + patience;
        loop {
            if flock(&file, libc::LOCK_EX) {
                return Ok(Lock { _file: file });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error).trying(format!("cannot lock {}", dir.display()));
            }
            if Instant::now() >= deadline {
                let holder = Holder::of(&file).map_or("whose process is gone by now".to_string(), |holder| {
                    log::info!("the lock on {} is held by {holder}", dir.display());
                    holder.to_string()
                });
                return Err(Error::Locked { holder, seconds: patience.as_secs_f32() });
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A probation lasts for as long as this lives, or the process that has it: so long the user-space half of the policy before
/// stands by. Several at once are one.
#[derive(Debug)]
pub struct Probation {
    _file: File,
    dir: PathBuf,
}

impl Probation {
    pub(crate) fn begin(dir: &Path) -> Result<Probation> {
        let what = || format!("cannot make {}", dir.display());
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.trying(what())?,
        }
        let file = File::open(dir).trying(what())?;
        // Waiting: who looks whether one lasts has it for a moment.
        // SAFETY: the descriptor is open for the whole call.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH) } == 0 {
            return Ok(Probation { _file: file, dir: dir.to_path_buf() });
        }
        Err(io::Error::last_os_error()).trying(what())
    }

    /// Does any process have one?
    pub(crate) fn lasts(dir: &Path) -> bool {
        File::open(dir).is_ok_and(|file| !flock(&file, libc::LOCK_EX))
    }
}

impl Drop for Probation {
    fn drop(&mut self) {
        // Another one that lasts has it open all the same, but is not seen any more: its policy's half ends sooner.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Without waiting.
fn flock(file: &File, how: libc::c_int) -> bool {
    // SAFETY: the descriptor is open for the whole call.
    unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) == 0 }
}

/// The process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    pid: i32,
    command: String,
}

impl Holder {
    /// Of the flock on an open file, from `/proc/locks`.
    fn of(file: &File) -> Option<Holder> {
        let meta = file.metadata().ok()?;
        let dev = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let pid = holder_in(&fs::read_to_string("/proc/locks").ok()?, dev, meta.ino())?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Holder { pid, command: readable(&command) })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.as_str() {
            "" => write!(f, "PID {}", self.pid),
            command => write!(f, "PID {}: {command}", self.pid),
        }
    }
}

/// The holder of a flock, out of the text of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 1234 00:1c:5678 0 EOF`. Who waits
/// has a `->` behind the number.
fn holder_in(locks: &str, (major, minor): (u32, u32), ino: u64) -> Option<i32> {
    let place = format!("{major:02x}:{minor:02x}:{ino}");
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}

/// A command line as the kernel has it, in one short line.
fn readable(cmdline: &[u8]) -> String {
    let text = String::from_utf8_lossy(cmdline).trim_end_matches('\0').replace('\0', " ");
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match clean.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: FLOCK  ADVISORY  WRITE 77 00:1c:42 0 EOF\n\
        2: POSIX  ADVISORY  WRITE 5 00:1d:43 0 EOF\n\
        3: FLOCK  ADVISORY  WRITE 1234 00:1d:43 0 EOF\n\
        3: -> FLOCK  ADVISORY  WRITE 99 00:1d:43 0 EOF\n";

    #[test]
    fn the_holder_is_found_and_not_who_waits() {
        assert_eq!(holder_in(LOCKS, (0, 0x1d), 43), Some(1234));
        assert_eq!(holder_in(LOCKS, (0, 0x1c), 42), Some(77));
        assert_eq!(holder_in(LOCKS, (0, 0x1d), 44), None);
    }

    #[test]
    fn commands_are_one_short_line() {
        assert_eq!(readable(b"scx-upgrade\0swap\0./x\0"), "scx-upgrade swap ./x");
        assert_eq!(readable(b"a\nb\x1b\0"), "a?b?");
        assert_eq!(readable(&[b'x'; 500]).chars().count(), SHOWN + 1);
    }

    #[test]
    fn a_probation_is_seen_while_it_lasts() {
        let dir = std::env::temp_dir().join(format!("scx-upgrade-probation-{}", std::process::id()));
        assert!(!Probation::lasts(&dir));
        let probation = Probation::begin(&dir).unwrap();
        assert!(Probation::lasts(&dir));
        drop(probation);
        assert!(!Probation::lasts(&dir) && !dir.exists());
    }

    #[test]
    fn a_second_one_waits_and_is_told_who_has_it() {
        let dir = std::env::temp_dir().join(format!("scx-upgrade-lock-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let first = Lock::take(&dir, Duration::ZERO).unwrap();
        let error = Lock::take(&dir, Duration::from_millis(30)).unwrap_err().to_string();
        assert!(error.contains(&format!("PID {}: ", std::process::id())), "{error}");
        let (begun, begins) = std::sync::mpsc::channel();
        let waits = dir.clone();
        let second = std::thread::spawn(move || {
            begun.send(()).unwrap();
            Lock::take(&waits, Duration::from_secs(60)).is_ok()
        });
        begins.recv().unwrap();
        drop(first);
        assert!(second.join().unwrap());
        fs::remove_dir(&dir).unwrap();
    }
}

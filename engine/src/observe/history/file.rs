//! The history's file: a line for each entry, a checksum before it. It is bounded: a full file becomes the older one of
//! two, and what was the older one goes.

use std::ffi::CStr;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Entry;
use crate::os::private_dir::PrivateDir;
use crate::os::private_dir::PrivateDirError;

const NAME: &CStr = c"history";
const OLDER: &CStr = c"history.old";
/// A file that has so many bytes becomes the older one.
const FULL: u64 = 512 * 1024;
/// The longest line. No entry comes near it: its texts are bounded.
const LINE: usize = 16 * 1024;

/// Why an entry cannot be written, or none be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder or a file in it.
    #[error(transparent)]
    PrivateDir(#[from] PrivateDirError),
    /// An entry that is not to be expected.
    #[error("an entry of {bytes} bytes is too long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// What was read.
#[derive(Debug, Default)]
pub struct HistoryLog {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Lines that are none: torn by a full disk or a power cut, or written by a version to come.
    pub damaged: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct History {
    folder: PrivateDir,
    full: u64,
}

impl Default for History {
    fn default() -> Self {
        History::new()
    }
}

impl History {
    /// That of this machine, in `/var/lib/scx-upgrade`.
    pub fn new() -> History {
        History { folder: PrivateDir::of_this_machine(), full: FULL }
    }

    /// One in another folder.
    pub fn at(folder: &Path) -> History {
        History { folder: PrivateDir::at(folder), full: FULL }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Add an entry.
    ///
    /// # Errors
    /// It is not written. What was there is as it was.
    pub fn append(&self, entry: &Entry) -> Result<(), HistoryError> {
        let json = serde_json::to_string(entry).map_err(|e| self.folder.io(NAME, e.into()))?;
        if json.len() > LINE {
            return Err(HistoryError::TooLong { bytes: json.len() });
        }
        Ok(self.append_line(&json)?)
    }

    fn append_line(&self, json: &str) -> Result<(), PrivateDirError> {
        let io = |source| self.folder.io(NAME, source);
        let folder = self.folder.make()?;
        let mut file = folder.open(NAME, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT)?;
        let mut size = file.metadata().map_err(io)?.len();
        if size >= self.full {
            folder.rename(NAME, OLDER)?;
            file = folder.open(NAME, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT)?;
            size = file.metadata().map_err(io)?.len();
        }
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1).map_err(io)?;
        }
        // A line that was cut off ends here, so that it takes no other with it.
        let begin = if last == *b"\n" { "" } else { "\n" };
        // One call: lines of two that write at once stay whole.
        let line = format!("{begin}{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        file.write_all(line.as_bytes()).map_err(io)?;
        file.sync_data().map_err(io)
    }

    /// All that is there. No folder is no history.
    ///
    /// # Errors
    /// It cannot be read, or is not root's own. Damaged lines are no error.
    pub fn read(&self) -> Result<HistoryLog, HistoryError> {
        let mut past = HistoryLog::default();
        let Some(folder) = self.folder.open()? else { return Ok(past) };
        for name in [OLDER, NAME] {
            let Some(file) = folder.open_existing(name)? else { continue };
            let mut bytes = Vec::new();
            // However large someone made it.
            file.take(4 * self.full).read_to_end(&mut bytes).map_err(|e| self.folder.io(name, e))?;
            for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                match parse(line) {
                    Some(entry) => past.entries.push(entry),
                    None => past.damaged += 1,
                }
            }
        }
        Ok(past)
    }

    /// Could an entry be written? Nothing is made for the answer.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), HistoryError> {
        let Some(folder) = self.folder.open()? else { return Ok(self.folder.could_be_made()?) };
        match folder.open_existing(NAME)? {
            Some(_) => Ok(folder.open(NAME, libc::O_RDWR | libc::O_APPEND).map(drop)?),
            None => Ok(folder.is_writable()?),
        }
    }
}

/// A line: checksum, blank, JSON.
fn parse(line: &[u8]) -> Option<Entry> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    if crc32fast::hash(json) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::super::tests::entry;
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("scx-upgrade-history-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        fn history(&self) -> History {
            History::at(&self.0.join("state"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn numbers(history: &History) -> Vec<u32> {
        history.read().unwrap().entries.iter().map(|e| e.generation.unwrap()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let scratch = Scratch::new("plain");
        let history = scratch.history();
        assert!(history.read().unwrap().entries.is_empty());
        history.check().unwrap();
        assert!(!history.folder().exists(), "a check makes nothing");
        let entries: Vec<_> = (1..4).map(entry).collect();
        entries.iter().for_each(|e| history.append(e).unwrap());
        assert_eq!(history.read().unwrap().entries, entries);
        let mode = fs::metadata(history.folder()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::metadata(history.folder.file(NAME)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_or_damaged_line_takes_no_other_with_it() {
        let scratch = Scratch::new("torn");
        let history = scratch.history();
        (1..4).for_each(|n| history.append(&entry(n)).unwrap());
        let whole = fs::read(history.folder.file(NAME)).unwrap();
        for end in [1, 8, 9, 40, whole.len() / 2, whole.len() - 1] {
            fs::write(history.folder.file(NAME), &whole[..whole.len() - end]).unwrap();
            let left = numbers(&history);
            history.append(&entry(9)).unwrap();
            let now = numbers(&history);
            assert_eq!(now[..left.len()], left);
            assert_eq!(now.last(), Some(&9), "cut by {end}");
        }
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        fs::write(history.folder.file(NAME), &flipped).unwrap();
        assert_eq!(history.read().unwrap().damaged, 1);
        assert_eq!(numbers(&history), [2, 3]);
        fs::write(history.folder.file(NAME), [0xff; 5000]).unwrap();
        assert_eq!(history.read().unwrap().damaged, 1);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let scratch = Scratch::new("bounded");
        let history = History { full: 4096, ..scratch.history() };
        for n in 1..200 {
            history.append(&entry(n)).unwrap();
        }
        let size = |name| fs::metadata(history.folder.file(name)).unwrap().len();
        assert!(size(NAME) + size(OLDER) < 3 * 4096, "{} and {}", size(NAME), size(OLDER));
        let numbers = numbers(&history);
        assert_eq!(numbers.last(), Some(&199));
        assert!(numbers.len() > 4 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    }

    #[test]
    fn nothing_is_followed_and_nothing_blocks() {
        let scratch = Scratch::new("links");
        let history = scratch.history();
        let elsewhere = scratch.0.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, history.folder()).unwrap();
        assert!(matches!(
            history.append(&entry(1)),
            Err(HistoryError::PrivateDir(PrivateDirError::Unsafe { .. }))
        ));
        fs::remove_file(history.folder()).unwrap();

        fs::create_dir(history.folder()).unwrap();
        fs::set_permissions(history.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(elsewhere.join("target"), history.folder.file(NAME)).unwrap();
        let error = history.append(&entry(1)).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        assert!(!elsewhere.join("target").exists());
        assert_eq!(fs::metadata(history.folder()).unwrap().mode() & 0o777, 0o700, "it is closed to others");
        fs::remove_file(history.folder.file(NAME)).unwrap();

        let path =
            std::ffi::CString::new(history.folder.file(NAME).into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert!(matches!(
            history.append(&entry(1)),
            Err(HistoryError::PrivateDir(PrivateDirError::Unsafe { .. }))
        ));
        fs::remove_file(history.folder.file(NAME)).unwrap();

        fs::write(elsewhere.join("other"), "").unwrap();
        fs::hard_link(elsewhere.join("other"), history.folder.file(NAME)).unwrap();
        assert!(matches!(
            history.append(&entry(1)),
            Err(HistoryError::PrivateDir(PrivateDirError::Unsafe { .. }))
        ));
        assert_eq!(fs::read(elsewhere.join("other")).unwrap(), b"");
        fs::remove_file(history.folder.file(NAME)).unwrap();
        fs::create_dir(history.folder.file(NAME)).unwrap();
        assert!(matches!(
            history.append(&entry(1)),
            Err(HistoryError::PrivateDir(PrivateDirError::Unsafe { .. }))
        ));
    }
}

//! The history's file: a line for each entry, a checksum before it. It is bounded: a full file becomes the older one of
//! two, and what was the older one goes.
//!
//! The folder is of mode 0700 and root's, or it is not used. Nothing in it is followed that is a link, and nothing is
//! opened that is no plain file, so whatever someone put there before can neither redirect nor block a write.

use std::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::Entry;

const FOLDER: &str = "/var/lib/scx-upgrade";
const NAME: &CStr = c"history";
const OLDER: &CStr = c"history.old";
/// A file that has so many bytes becomes the older one.
const FULL: u64 = 512 * 1024;
/// The longest line. No entry comes near it: its texts are bounded.
const LINE: usize = 16 * 1024;

/// Why an entry cannot be written, or none be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A system call.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Not a folder or a file that root alone has.
    #[error("{} {why}: it is left alone", path.display())]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// An entry that is not to be expected.
    #[error("an entry of {bytes} bytes is too long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// What was read.
#[derive(Debug, Default)]
pub struct Past {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Lines that are none: torn by a full disk or a power cut, or written by a version to come.
    pub damaged: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
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
        History::at(Path::new(FOLDER))
    }

    /// One in another folder.
    pub fn at(folder: &Path) -> History {
        History { folder: folder.to_path_buf(), full: FULL }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Add an entry.
    ///
    /// # Errors
    /// It is not written. What was there is as it was.
    pub fn append(&self, entry: &Entry) -> Result<(), HistoryError> {
        let json = serde_json::to_string(entry).map_err(|e| self.io(NAME, e.into()))?;
        if json.len() > LINE {
            return Err(HistoryError::TooLong { bytes: json.len() });
        }
        let folder = self.make_folder()?;
        let mut file = self.open(&folder, NAME, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT)?;
        let mut size = file.metadata().map_err(|e| self.io(NAME, e))?.len();
        if size >= self.full {
            rename(&folder, NAME, OLDER).map_err(|e| self.io(OLDER, e))?;
            file = self.open(&folder, NAME, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT)?;
            size = file.metadata().map_err(|e| self.io(NAME, e))?.len();
        }
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1).map_err(|e| self.io(NAME, e))?;
        }
        // A line that was cut off ends here, so that it takes no other with it.
        let begin = if last == *b"\n" { "" } else { "\n" };
        // One call: lines of two that write at once stay whole.
        let line = format!("{begin}{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        file.write_all(line.as_bytes()).map_err(|e| self.io(NAME, e))?;
        file.sync_data().map_err(|e| self.io(NAME, e))
    }

    /// All that is there. No folder is no history.
    ///
    /// # Errors
    /// It cannot be read, or is not root's own. Damaged lines are no error.
    pub fn read(&self) -> Result<Past, HistoryError> {
        let mut past = Past::default();
        let folder = match self.open_folder() {
            Err(HistoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(past);
            }
            other => other?,
        };
        for name in [OLDER, NAME] {
            let file = match self.open(&folder, name, libc::O_RDONLY) {
                Err(HistoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let mut bytes = Vec::new();
            // However large someone made it.
            file.take(4 * self.full).read_to_end(&mut bytes).map_err(|e| self.io(name, e))?;
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
        match self.open_folder() {
            Err(HistoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let above = self.folder.ancestors().skip(1).find(|path| path.exists());
                writable(above.unwrap_or(Path::new("/")))
            }
            other => other.and_then(|folder| match self.open(&folder, NAME, libc::O_RDWR | libc::O_APPEND) {
                Err(HistoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    writable(&self.folder)
                }
                other => other.map(drop),
            }),
        }
    }

    fn make_folder(&self) -> Result<File, HistoryError> {
        let io = |source| HistoryError::Io { path: self.folder.clone(), source };
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(io)?,
        }
        self.open_folder()
    }

    /// The folder, if it is one and nobody else can write to it. Access that is too wide is taken away.
    fn open_folder(&self) -> Result<File, HistoryError> {
        let io = |source| HistoryError::Io { path: self.folder.clone(), source };
        let wrong = |why| HistoryError::Unsafe { path: self.folder.clone(), why };
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.folder);
        let folder = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => wrong("is a link or no folder"),
            _ => io(e),
        })?;
        let meta = folder.metadata().map_err(io)?;
        // SAFETY: no arguments, no effects.
        if meta.uid() != unsafe { libc::geteuid() } {
            return Err(wrong("belongs to another user"));
        }
        if meta.mode() & 0o077 != 0 {
            folder.set_permissions(fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        Ok(folder)
    }

    fn open(&self, folder: &File, name: &CStr, flags: libc::c_int) -> Result<File, HistoryError> {
        let wrong = |why| HistoryError::Unsafe { path: self.path(name), why };
        // Not waiting: whatever a pipe's other end does.
        let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the descriptor is open and the name NUL-terminated; the mode is an unsigned int, as O_CREAT takes it.
        let fd = unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, 0o600 as libc::c_uint) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ELOOP) => wrong("is a link"),
                Some(libc::ENXIO | libc::EISDIR) => wrong("is no plain file"),
                _ => self.io(name, error),
            });
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        let meta = file.metadata().map_err(|e| self.io(name, e))?;
        match meta {
            _ if !meta.is_file() => Err(wrong("is no plain file")),
            _ if meta.nlink() != 1 => Err(wrong("has another name as well")),
            _ => Ok(file),
        }
    }

    fn path(&self, name: &CStr) -> PathBuf {
        self.folder.join(name.to_string_lossy().as_ref())
    }

    fn io(&self, name: &CStr, source: io::Error) -> HistoryError {
        HistoryError::Io { path: self.path(name), source }
    }
}

/// May something be made in a folder?
fn writable(folder: &Path) -> Result<(), HistoryError> {
    let io = |source| HistoryError::Io { path: folder.to_path_buf(), source };
    let path = CString::new(folder.as_os_str().as_bytes()).map_err(|e| io(e.into()))?;
    // SAFETY: the path is NUL-terminated.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(io(io::Error::last_os_error())),
    }
}

fn rename(folder: &File, from: &CStr, to: &CStr) -> io::Result<()> {
    let fd = folder.as_raw_fd();
    // SAFETY: the descriptor is open and both names are NUL-terminated.
    match unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
    use std::os::unix::fs::symlink;

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
        assert_eq!(fs::metadata(history.path(NAME)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_or_damaged_line_takes_no_other_with_it() {
        let scratch = Scratch::new("torn");
        let history = scratch.history();
        (1..4).for_each(|n| history.append(&entry(n)).unwrap());
        let whole = fs::read(history.path(NAME)).unwrap();
        for end in [1, 8, 9, 40, whole.len() / 2, whole.len() - 1] {
            fs::write(history.path(NAME), &whole[..whole.len() - end]).unwrap();
            let left = numbers(&history);
            history.append(&entry(9)).unwrap();
            let now = numbers(&history);
            assert_eq!(now[..left.len()], left);
            assert_eq!(now.last(), Some(&9), "cut by {end}");
        }
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        fs::write(history.path(NAME), &flipped).unwrap();
        assert_eq!(history.read().unwrap().damaged, 1);
        assert_eq!(numbers(&history), [2, 3]);
        fs::write(history.path(NAME), [0xff; 5000]).unwrap();
        assert_eq!(history.read().unwrap().damaged, 1);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let scratch = Scratch::new("bounded");
        let history = History { full: 4096, ..scratch.history() };
        for n in 1..200 {
            history.append(&entry(n)).unwrap();
        }
        let size = |name| fs::metadata(history.path(name)).unwrap().len();
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
        assert!(matches!(history.append(&entry(1)), Err(HistoryError::Unsafe { .. })));
        fs::remove_file(history.folder()).unwrap();

        fs::create_dir(history.folder()).unwrap();
        fs::set_permissions(history.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(elsewhere.join("target"), history.path(NAME)).unwrap();
        let error = history.append(&entry(1)).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        assert!(!elsewhere.join("target").exists());
        assert_eq!(fs::metadata(history.folder()).unwrap().mode() & 0o777, 0o700, "it is closed to others");
        fs::remove_file(history.path(NAME)).unwrap();

        let path = std::ffi::CString::new(history.path(NAME).into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert!(matches!(history.append(&entry(1)), Err(HistoryError::Unsafe { .. })));
        fs::remove_file(history.path(NAME)).unwrap();

        fs::write(elsewhere.join("other"), "").unwrap();
        fs::hard_link(elsewhere.join("other"), history.path(NAME)).unwrap();
        assert!(matches!(history.append(&entry(1)), Err(HistoryError::Unsafe { .. })));
        assert_eq!(fs::read(elsewhere.join("other")).unwrap(), b"");
        fs::remove_file(history.path(NAME)).unwrap();
        fs::create_dir(history.path(NAME)).unwrap();
        assert!(matches!(history.append(&entry(1)), Err(HistoryError::Unsafe { .. })));
    }
}

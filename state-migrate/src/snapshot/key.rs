//! What the rows of each scope are known by.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use super::wire::{Reader, Writer};
use super::{MAX_CGROUPS, MAX_CPUS, MAX_PATH, MAX_TASKS, SnapshotError};

/// What a row of a [`Table`](super::Table) is known by. Implemented for the keys of the four scopes, and for no other
/// type.
pub trait Key: Ord + fmt::Display + Wire {
    /// The most rows of one snapshot.
    const MAX_ROWS: usize;
    /// What rows are, for messages.
    const ROWS: &'static str;
}

/// A key as bytes. It cannot be named from outside, which keeps others from implementing [`Key`].
pub trait Wire: Sized {
    /// Appends the key.
    fn write(&self, out: &mut Writer);
    /// Reads the key.
    fn read(from: &mut Reader) -> Result<Self, SnapshotError>;
}

/// A boot of a machine, as `/proc/sys/kernel/random/boot_id` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl FromStr for BootId {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<BootId, SnapshotError> {
        let wrong = || SnapshotError::BootId { text: text.to_owned() };
        let digits: Vec<u8> = text.trim().bytes().filter(|&b| b != b'-').collect();
        if digits.len() != 32 {
            return Err(wrong());
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            for &digit in pair {
                let value = char::from(digit).to_digit(16).ok_or_else(wrong)?;
                *byte = *byte << 4 | value as u8;
            }
        }
        Ok(BootId(id))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" })?;
        }
        Ok(())
    }
}

/// A task of the boot that the snapshot names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Its PID in the first PID namespace: of the thread, not of the process.
    pub pid: u32,
    /// When it started, in nanoseconds since the boot: tells it from an earlier task with that PID.
    pub start_ns: u64,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} (started at {} ns)", self.pid, self.start_ns)
    }
}

impl Key for TaskKey {
    const MAX_ROWS: usize = MAX_TASKS;
    const ROWS: &'static str = "tasks";
}

impl Wire for TaskKey {
    fn write(&self, out: &mut Writer) {
        out.u32(self.pid);
        out.u64(self.start_ns);
    }

    fn read(from: &mut Reader) -> Result<TaskKey, SnapshotError> {
        Ok(TaskKey { pid: from.u32()?, start_ns: from.u64()? })
    }
}

/// The path of a cgroup from the root of the v2 hierarchy, as in `/proc/PID/cgroup`: `/` is the root, and
/// `/system.slice/cron.service` another. It never leads out of the hierarchy it is looked up in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(Box<[u8]>);

impl CgroupPath {
    /// Checks a path. The kernel takes any bytes but `/`, NUL and a line's end in a name.
    pub fn new(path: impl AsRef<OsStr>) -> Result<CgroupPath, SnapshotError> {
        let path = path.as_ref().as_bytes();
        match path_fault(path) {
            Some(reason) => {
                let path = String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]).into_owned();
                Err(SnapshotError::CgroupPath { path, reason })
            }
            None => Ok(CgroupPath(path.into())),
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path to join to where the hierarchy is mounted; empty for the root.
    pub fn relative(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.0.strip_prefix(b"/").unwrap_or(&self.0)))
    }
}

fn path_fault(path: &[u8]) -> Option<&'static str> {
    if path.len() > MAX_PATH {
        return Some("it is too long");
    }
    let Some(rest) = path.strip_prefix(b"/") else { return Some("it does not start with `/`") };
    if rest.iter().any(|b| matches!(b, 0 | b'\n')) {
        return Some("it has a NUL or a line's end in it");
    }
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    if !rest.is_empty() && !rest.split(|&b| b == b'/').all(is_name) {
        return Some("a part of it is empty, `.` or `..`");
    }
    None
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {:?}", self.as_path())
    }
}

impl Key for CgroupPath {
    const MAX_ROWS: usize = MAX_CGROUPS;
    const ROWS: &'static str = "cgroups";
}

impl Wire for CgroupPath {
    fn write(&self, out: &mut Writer) {
        // `MAX_PATH` fits.
        out.u16(self.0.len() as u16);
        out.bytes(&self.0);
    }

    fn read(from: &mut Reader) -> Result<CgroupPath, SnapshotError> {
        let len = from.u16()?;
        let path = from.take(len.into())?;
        match path_fault(path) {
            Some(_) => Err(from.malformed("a path that no cgroup has")),
            None => Ok(CgroupPath(path.into())),
        }
    }
}

impl Key for u32 {
    const MAX_ROWS: usize = MAX_CPUS;
    const ROWS: &'static str = "CPUs";
}

impl Wire for u32 {
    fn write(&self, out: &mut Writer) {
        out.u32(*self);
    }

    fn read(from: &mut Reader) -> Result<u32, SnapshotError> {
        from.u32()
    }
}

/// The global record has no key: there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoKey;

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the global record")
    }
}

impl Key for NoKey {
    const MAX_ROWS: usize = 1;
    const ROWS: &'static str = "global records";
}

impl Wire for NoKey {
    fn write(&self, _: &mut Writer) {}

    fn read(_: &mut Reader) -> Result<NoKey, SnapshotError> {
        Ok(NoKey)
    }
}

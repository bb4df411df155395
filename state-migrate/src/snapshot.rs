//! Snapshots: what a scheduler knows, in a file that outlives the boot.
//!
//! A [`Snapshot`] holds one [`Table`] of columns for each scope: cgroups by path, CPUs by number, the global record,
//! and tasks by PID and start time, which mean something only within the boot that the snapshot names. [`Selection`]
//! picks the columns' bytes out of the host's records, [`restore()`] says which bytes go where in the records of
//! another layout.
//!
//! # Format
//!
//! Numbers are little-endian, and there is no padding. The same content always makes the same bytes.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic, `SCXSNAP` and a NUL |
//! | 2, 2 | version of the format: major, minor |
//! | 8 | length of the file |
//! | 4 | CRC-32 (IEEE) of the 20 bytes before: the header's checksum |
//! | … | the sections |
//! | 4 | CRC-32 of all bytes before: the file's checksum |
//!
//! A section is a number (2 bytes), a length (4) and as many bytes. The sections are, once each and in this order:
//!
//! 1. *meta*: time (8), boot id (16), then policy, version and kernel, each with its length before it (2).
//! 2. *task*, *cgroup*, *cpu* and *global* (numbers 2 to 5), a table each: the number of columns (2); for each column
//!    its name with its length (1), its unit with its length (1; 0 for none) and its type; the number of rows (4); for
//!    each row its key and then the values of all columns, in their order. Columns ascend by name, rows by key. A key
//!    is PID (4) and start time (8), a path with its length (2), a CPU's number (4), or nothing.
//!
//! A type is a byte for what it is, and then: 1 and 2, unsigned and signed integer, and 4 and 5, unsigned and signed
//! enum: size (1); 3, bool: nothing; 6, array: length (4) and the element's type; 7, struct: size (4), alignment (1),
//! number of fields (2), and for each field its name with its length (1), its offset (4) and its type.
//!
//! # Versions
//!
//! The first 24 bytes and the checksum at the end keep their form in every version, so damage is told from a version
//! that is newer. A reader takes its own major version with its own or any older minor version.
//!
//! * A new **minor** version only adds: sections behind the last one, kinds of types. A reader takes a section that
//!   the file's version did not have yet as empty.
//! * Anything else is a new **major** version, and then a reader says which older ones it still takes (none so far).

mod convert;
mod error;
mod file;
mod key;
mod restore;
mod select;
mod table;
pub(crate) mod types;
mod wire;

use std::fmt;

pub use self::convert::{Converted, Same, convert};
pub use self::error::SnapshotError;
pub use self::key::{BootId, CgroupPath, Key, NoKey, TaskKey};
pub use self::restore::{ColumnReport, Match, Restored, ScopeRestore, restore};
pub use self::select::{Pick, Selection};
pub use self::table::{SavedColumn, Table};

use self::wire::{Reader, Writer};
use crate::schema::Scope;

/// The first bytes of a snapshot.
pub const MAGIC: [u8; 8] = *b"SCXSNAP\0";
/// The version that is written, and the newest that is read.
pub const VERSION: Version = Version { major: 1, minor: 0 };
/// The largest snapshot in bytes: 2,000,000 tasks with 100 bytes each fit.
pub const MAX_FILE: usize = 256 << 20;
/// The longest text of [`Meta`] in bytes.
pub const MAX_TEXT: usize = 255;
/// The longest unit of a column in bytes.
pub const MAX_UNIT: usize = 31;
/// The longest path of a cgroup in bytes, as `PATH_MAX` has it.
pub const MAX_PATH: usize = 4095;
/// The most tasks: the kernel's limit on PIDs.
pub const MAX_TASKS: usize = 1 << 22;
/// The most cgroups.
pub const MAX_CGROUPS: usize = 1 << 20;
/// The most CPUs.
pub const MAX_CPUS: usize = 1 << 16;

/// Bytes of the header.
const HEADER: usize = 24;
/// Bytes of the file's checksum.
const TRAILER: usize = 4;
/// The number of the first section.
const META: u16 = 1;

/// The version of a snapshot's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Goes up when older readers and newer files cannot agree.
    pub major: u16,
    /// Goes up when something is added.
    pub minor: u16,
}

impl Version {
    /// Whether a reader of this version takes a snapshot of version `found`: the rules are in the module's text.
    pub fn accepts(self, found: Version) -> Result<(), SnapshotError> {
        if found > self {
            return Err(SnapshotError::Newer { found, ours: self });
        }
        if found.major < self.major {
            return Err(SnapshotError::TooOld { found, ours: self });
        }
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where a snapshot comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// When it was made, in seconds since 1970.
    pub created_unix: u64,
    /// The boot in which it was made: its tasks are tasks of that boot.
    pub boot_id: BootId,
    /// The name of the policy that ran.
    pub policy: String,
    /// The policy's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
}

/// What a scheduler knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it comes from.
    pub meta: Meta,
    /// The tasks' columns.
    pub tasks: Table<TaskKey>,
    /// The cgroups' columns.
    pub cgroups: Table<CgroupPath>,
    /// The CPUs' columns, by CPU number.
    pub cpus: Table<u32>,
    /// The global columns.
    pub global: Table<NoKey>,
}

impl Snapshot {
    /// The snapshot as bytes, always the same for the same content.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut out = Writer::default();
        out.bytes(&MAGIC);
        out.u16(VERSION.major);
        out.u16(VERSION.minor);
        // The length and the header's checksum, once they are known.
        out.bytes(&[0; 12]);
        out.section(META, |out| self.meta.write(out))?;
        for scope in Scope::ALL {
            out.section(section(scope), |out| match scope {
                Scope::Task => self.tasks.write(out),
                Scope::Cgroup => self.cgroups.write(out),
                Scope::Cpu => self.cpus.write(out),
                Scope::Global => self.global.write(out),
            })?;
        }
        let mut out = out.into_bytes();
        let len = out.len() + TRAILER;
        if len > MAX_FILE {
            return Err(SnapshotError::Limit { what: "bytes", found: len, max: MAX_FILE });
        }
        out[12..20].copy_from_slice(&(len as u64).to_le_bytes());
        let header = crc32fast::hash(&out[..20]);
        out[20..HEADER].copy_from_slice(&header.to_le_bytes());
        let whole = crc32fast::hash(&out);
        out.extend_from_slice(&whole.to_le_bytes());
        Ok(out)
    }

    /// Reads what [`Snapshot::to_bytes`] wrote. No input makes it panic, and it allocates in proportion to the
    /// input, whatever lengths and counts that claims.
    pub fn from_bytes(raw: &[u8]) -> Result<Snapshot, SnapshotError> {
        let body = check(raw)?;
        let mut from = Reader::new(body, HEADER);
        let mut snapshot = Snapshot { meta: from.section(META, Meta::read)?, ..Snapshot::default() };
        for scope in Scope::ALL {
            let number = section(scope);
            match scope {
                Scope::Task => snapshot.tasks = from.section(number, Table::read)?,
                Scope::Cgroup => snapshot.cgroups = from.section(number, Table::read)?,
                Scope::Cpu => snapshot.cpus = from.section(number, Table::read)?,
                Scope::Global => snapshot.global = from.section(number, Table::read)?,
            }
        }
        from.done()?;
        Ok(snapshot)
    }
}

impl Meta {
    fn write(&self, out: &mut Writer) -> Result<(), SnapshotError> {
        out.u64(self.created_unix);
        out.bytes(&self.boot_id.0);
        for (what, text) in [("policy", &self.policy), ("version", &self.version), ("kernel", &self.kernel)] {
            error::check_text(what, text, MAX_TEXT)?;
            out.u16(text.len() as u16);
            out.bytes(text.as_bytes());
        }
        Ok(())
    }

    fn read(from: &mut Reader) -> Result<Meta, SnapshotError> {
        let (created_unix, boot_id) = (from.u64()?, BootId(from.array()?));
        let mut text = || {
            let len = from.u16()?;
            from.text(len.into(), MAX_TEXT)
        };
        let (policy, version, kernel) = (text()?, text()?, text()?);
        Ok(Meta { created_unix, boot_id, policy, version, kernel })
    }
}

fn section(scope: Scope) -> u16 {
    match scope {
        Scope::Task => 2,
        Scope::Cgroup => 3,
        Scope::Cpu => 4,
        Scope::Global => 5,
    }
}

/// Checks header and checksums, and returns the sections.
fn check(raw: &[u8]) -> Result<&[u8], SnapshotError> {
    let len = raw.len();
    if len > MAX_FILE {
        return Err(SnapshotError::Limit { what: "bytes", found: len, max: MAX_FILE });
    }
    if !raw.starts_with(&MAGIC[..len.min(MAGIC.len())]) || len == 0 {
        return Err(SnapshotError::NotSnapshot);
    }
    let mut from = Reader::new(raw, 0);
    let mut header = || -> Result<_, SnapshotError> {
        from.array::<8>()?;
        Ok((Version { major: from.u16()?, minor: from.u16()? }, from.u64()?, from.u32()?))
    };
    let cut = |_| SnapshotError::Truncated { expected: (HEADER + TRAILER) as u64, len };
    let (version, claimed, checksum) = header().map_err(cut)?;
    if crc32fast::hash(&raw[..20]) != checksum {
        return Err(SnapshotError::HeaderDamaged);
    }
    VERSION.accepts(version)?;
    if claimed > len as u64 || len < HEADER + TRAILER {
        return Err(SnapshotError::Truncated { expected: claimed.max((HEADER + TRAILER) as u64), len });
    }
    if claimed < len as u64 {
        return Err(SnapshotError::TooLong { expected: claimed, len });
    }
    let (content, trailer) = raw.split_at(len - TRAILER);
    if crc32fast::hash(content).to_le_bytes() != trailer {
        return Err(SnapshotError::Damaged);
    }
    Ok(&content[HEADER..])
}

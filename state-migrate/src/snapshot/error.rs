//! Why there is no snapshot.

use std::io;
use std::path::PathBuf;

use super::Version;

/// Why a snapshot cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot at all.
    #[error("not a snapshot: it does not start with `SCXSNAP`; give a file that a snapshot was written to")]
    NotSnapshot,
    /// Fewer bytes than there should be.
    #[error("the snapshot is cut short: {len} bytes of {expected}; take another copy of it")]
    Truncated {
        /// The bytes there should be.
        expected: u64,
        /// The bytes there are.
        len: usize,
    },
    /// More bytes than there should be.
    #[error(
        "the snapshot has {len} bytes instead of {expected}: something was appended; take another copy of it"
    )]
    TooLong {
        /// The bytes there should be.
        expected: u64,
        /// The bytes there are.
        len: usize,
    },
    /// The header's checksum is wrong.
    #[error("the snapshot's header is damaged (its checksum is wrong); take another copy of it")]
    HeaderDamaged,
    /// The file's checksum is wrong.
    #[error("the snapshot is damaged (its checksum is wrong); take another copy of it")]
    Damaged,
    /// From a newer version of this code.
    #[error(
        "the snapshot is of version {found}, this tool reads up to {ours}; update the tool, or do without the snapshot"
    )]
    Newer {
        /// The snapshot's version.
        found: Version,
        /// The newest that is read.
        ours: Version,
    },
    /// From a version that is no longer read.
    #[error(
        "the snapshot is of version {found}, this tool reads from {}.0 up to {ours}; use the tool that wrote it, or do \
         without the snapshot",
        ours.major
    )]
    TooOld {
        /// The snapshot's version.
        found: Version,
        /// The newest that is read.
        ours: Version,
    },
    /// Checksums are right, the content is not: no snapshot of this code.
    #[error("the snapshot says something that cannot be at byte {at}: {what}; make it anew with this tool")]
    Malformed {
        /// Where it stands, in bytes from the start of the file.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// More than a snapshot holds.
    #[error("the snapshot has {found} {what}, at most {max} are supported; save less")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much of it there is.
        found: usize,
        /// How much of it there may be.
        max: usize,
    },
    /// A text cannot stand in a snapshot.
    #[error("{what} {text:?} cannot be saved: {reason}; give it a plain name")]
    Text {
        /// What the text is.
        what: &'static str,
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path that is no cgroup's.
    #[error(
        "{path:?} is no path of a cgroup ({reason}); give it as `/proc/PID/cgroup` has it, from `/` at the root of \
         the hierarchy"
    )]
    CgroupPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not an id of a boot.
    #[error("{text:?} is no boot id; give what `/proc/sys/kernel/random/boot_id` says")]
    BootId {
        /// What was given.
        text: String,
    },
    /// Two columns of one name in one scope.
    #[error("column `{column}` is there twice; save the columns of one policy only")]
    DuplicateColumn {
        /// The column.
        column: String,
    },
    /// A type of no policy.
    #[error("column `{column}` has a type that no policy can have ({what}); save columns of a schema only")]
    BadType {
        /// The column.
        column: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two rows of one key.
    #[error("{key} is there twice; save each record once")]
    DuplicateRow {
        /// The key.
        key: String,
    },
    /// Values that are not those of the columns.
    #[error("{key} has {len} bytes of values, its columns have {expected}; take both from the same layout")]
    RowSize {
        /// The key.
        key: String,
        /// The bytes given.
        len: usize,
        /// The bytes of all columns.
        expected: usize,
    },
    /// A record is smaller than the layout has it.
    #[error(
        "a record of {len} bytes has no column `{column}`, which ends at byte {end}; take the record whole"
    )]
    RecordSize {
        /// The column.
        column: String,
        /// Where it ends.
        end: usize,
        /// The record's bytes.
        len: usize,
    },
    /// It cannot be brought into the columns of a policy.
    #[error("the snapshot cannot be brought into the policy's columns: {why}")]
    Unplanned {
        /// Why.
        why: String,
    },
    /// Not a plain file.
    #[error(
        "{path} is not a plain file (symbolic links are not followed either); give the snapshot's own path"
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system says no.
    #[error("cannot {doing} {path}: {source}; look at the path, its permissions and the space left")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// What is wrong with a text that is to be at most `max` bytes long and to be shown on a terminal.
pub(super) fn text_fault(text: &str, max: usize) -> Option<&'static str> {
    if text.len() > max {
        return Some("it is too long");
    }
    text.chars().any(char::is_control).then_some("it has control characters")
}

pub(super) fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), SnapshotError> {
    match text_fault(text, max) {
        Some(reason) => Err(SnapshotError::Text { what, text: text.to_owned(), reason }),
        None => Ok(()),
    }
}

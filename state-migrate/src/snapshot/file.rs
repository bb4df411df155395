//! Snapshots on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{MAX_FILE, Snapshot, SnapshotError};

/// Names to try for the temporary file: others may be left by a writer that was killed.
const ATTEMPTS: u32 = 64;

impl Snapshot {
    /// Writes the snapshot so that at any moment `path` is either what it was or the whole of it, a power cut
    /// included. Only the owner can read it. A symbolic link at `path` is replaced, not followed.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let bytes = self.to_bytes()?;
        if path.file_name().is_none() {
            return Err(SnapshotError::NotAFile { path: path.to_owned() });
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let (temporary, file) = create(folder)?;
        let mut guard = Temporary(Some(temporary));
        let failed = |doing, at: &Path, source| SnapshotError::Io { doing, path: at.to_owned(), source };
        fill(file, &bytes).map_err(|e| failed("write the snapshot", path, e))?;
        if let Some(temporary) = &guard.0 {
            fs::rename(temporary, path).map_err(|e| failed("put the snapshot in place at", path, e))?;
        }
        guard.0 = None;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| failed("sync the folder", folder, e))
    }

    /// Reads a snapshot from a plain file. It neither follows a symbolic link at `path` nor waits on a pipe, and
    /// reads no more than a snapshot can have.
    pub fn read(path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
        let path = path.as_ref();
        let failed = |doing, source| SnapshotError::Io { doing, path: path.to_owned(), source };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
                return Err(SnapshotError::NotAFile { path: path.to_owned() });
            }
            opened => opened.map_err(|e| failed("open the snapshot", e))?,
        };
        let meta = file.metadata().map_err(|e| failed("look at the snapshot", e))?;
        if !meta.is_file() {
            return Err(SnapshotError::NotAFile { path: path.to_owned() });
        }
        let max = MAX_FILE as u64;
        if meta.len() > max {
            let found = usize::try_from(meta.len()).unwrap_or(usize::MAX);
            return Err(SnapshotError::Limit { what: "bytes", found, max: MAX_FILE });
        }
        let mut bytes = Vec::new();
        // It may grow meanwhile; one byte too many is refused as too long.
        file.take(max + 1).read_to_end(&mut bytes).map_err(|e| failed("read the snapshot", e))?;
        Snapshot::from_bytes(&bytes)
    }
}

/// Creates a file in `folder` that no one else has.
fn create(folder: &Path) -> Result<(PathBuf, File), SnapshotError> {
    let mut attempt = 0;
    loop {
        let path = folder.join(format!(".scx-snapshot.{}-{attempt}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        // `create_new` is `O_CREAT | O_EXCL`.
        let options = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && attempt + 1 < ATTEMPTS => attempt += 1,
            Err(source) => {
                return Err(SnapshotError::Io { doing: "create the temporary file", path, source });
            }
        }
    }
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that is removed again unless it was put in place.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // There is nothing more to do about a file that cannot be removed.
            let _ = fs::remove_file(path);
        }
    }
}

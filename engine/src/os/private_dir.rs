//! Folders of this project's own: that in which things are kept over a boot, `/var/lib/scx-upgrade`, of which nothing is
//! needed for a decision about what runs; that of policies' logs; that of the pins.
//!
//! One is of mode 0700 and root's, or it is not used. Nothing in it is followed that is a link, and nothing is opened that is
//! no plain file, so whatever someone put there before can neither redirect nor block a write.

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
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

const PATH: &str = "/var/lib/scx-upgrade";

/// Why something in the folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
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
}

/// See the module. It need not be there yet.
#[derive(Debug, Clone)]
pub struct PrivateDir {
    path: PathBuf,
}

/// One that is there and is safe. Open: what comes to its path later does not matter.
#[derive(Debug)]
pub struct Opened<'a> {
    folder: &'a PrivateDir,
    file: File,
}

impl PrivateDir {
    /// That of this machine.
    pub fn of_this_machine() -> PrivateDir {
        PrivateDir::at(Path::new(PATH))
    }

    /// Another one.
    pub fn at(path: &Path) -> PrivateDir {
        PrivateDir { path: path.to_path_buf() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Put a file there, whole or not at all, in the place of one that is there.
    ///
    /// # Errors
    /// It is not written. What was there is as it was.
    pub fn replace(&self, name: &CStr, bytes: &[u8]) -> Result<(), PrivateDirError> {
        let folder = self.make()?;
        let new = CString::new([name.to_bytes(), b".new"].concat()).map_err(|e| self.io(name, e.into()))?;
        let mut file = folder.open(&new, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| self.io(&new, e))?;
        folder.rename(&new, name)?;
        folder.file.sync_all().map_err(|e| self.io(name, e))
    }

    /// What is in a file there, at most so many bytes of it; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no plain file that root alone has.
    pub fn read(&self, name: &CStr, at_most: u64) -> Result<Option<Vec<u8>>, PrivateDirError> {
        let Some(folder) = self.open()? else { return Ok(None) };
        let Some(file) = folder.open_existing(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(at_most).read_to_end(&mut bytes).map_err(|e| self.io(name, e))?;
        Ok(Some(bytes))
    }

    /// Make it where it is not there, with the folders above it, and open it.
    ///
    /// # Errors
    /// It cannot be made, or is not this user's own.
    pub fn make(&self) -> Result<Opened<'_>, PrivateDirError> {
        let io = |source| PrivateDirError::Io { path: self.path.clone(), source };
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(io)?,
        }
        let gone = || io(io::Error::from(io::ErrorKind::NotFound));
        self.open()?.ok_or_else(gone)
    }

    /// The folder, if it is one and nobody else can write to it. Access that is too wide is taken away. `None` if there is
    /// none.
    pub(crate) fn open(&self) -> Result<Option<Opened<'_>>, PrivateDirError> {
        let io = |source| PrivateDirError::Io { path: self.path.clone(), source };
        let wrong = |why| PrivateDirError::Unsafe { path: self.path.clone(), why };
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                return Err(wrong("is a link or no folder"));
            }
            Err(e) => return Err(io(e)),
        };
        let meta = file.metadata().map_err(io)?;
        // SAFETY: no arguments, no effects.
        if meta.uid() != unsafe { libc::geteuid() } {
            return Err(wrong("belongs to another user"));
        }
        if meta.mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        Ok(Some(Opened { folder: self, file }))
    }

    /// Could it be made, where it is not there? Nothing is made for the answer.
    pub(crate) fn could_be_made(&self) -> Result<(), PrivateDirError> {
        let above = self.path.ancestors().skip(1).find(|path| path.exists());
        writable(above.unwrap_or(Path::new("/")))
    }

    pub(crate) fn io(&self, name: &CStr, source: io::Error) -> PrivateDirError {
        PrivateDirError::Io { path: self.file(name), source }
    }

    /// Where a file in it is.
    pub fn file(&self, name: &CStr) -> PathBuf {
        self.path.join(name.to_string_lossy().as_ref())
    }
}

impl Opened<'_> {
    /// A plain file in it, with flags as `open(2)` has them. One that is made is of mode 0600.
    ///
    /// # Errors
    /// It cannot be opened, or is no plain file with one name.
    pub fn open(&self, name: &CStr, flags: libc::c_int) -> Result<File, PrivateDirError> {
        let wrong = |why| PrivateDirError::Unsafe { path: self.folder.file(name), why };
        // Not waiting: whatever a pipe's other end does.
        let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the descriptor is open and the name NUL-terminated; the mode is an unsigned int, as O_CREAT takes it.
        let fd = unsafe { libc::openat(self.file.as_raw_fd(), name.as_ptr(), flags, 0o600 as libc::c_uint) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ELOOP) => wrong("is a link"),
                Some(libc::ENXIO | libc::EISDIR) => wrong("is no plain file"),
                _ => self.folder.io(name, error),
            });
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        let meta = file.metadata().map_err(|e| self.folder.io(name, e))?;
        match meta {
            _ if !meta.is_file() => Err(wrong("is no plain file")),
            _ if meta.nlink() != 1 => Err(wrong("has another name as well")),
            _ => Ok(file),
        }
    }

    /// A file in it, to be read; `None` if there is none.
    ///
    /// # Errors
    /// As for [`Opened::open`].
    pub fn open_existing(&self, name: &CStr) -> Result<Option<File>, PrivateDirError> {
        match self.open(name, libc::O_RDONLY) {
            Err(PrivateDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Give a file in it another name, whatever had that.
    ///
    /// # Errors
    /// It is not there, or cannot be renamed.
    pub fn rename(&self, from: &CStr, to: &CStr) -> Result<(), PrivateDirError> {
        let fd = self.file.as_raw_fd();
        // SAFETY: the descriptor is open and both names are NUL-terminated.
        match unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) } {
            0 => Ok(()),
            _ => Err(self.folder.io(to, io::Error::last_os_error())),
        }
    }

    /// May something be made in it?
    ///
    /// # Errors
    /// Why not.
    pub fn is_writable(&self) -> Result<(), PrivateDirError> {
        writable(&self.folder.path)
    }
}

/// May something be made in a folder?
fn writable(folder: &Path) -> Result<(), PrivateDirError> {
    let io = |source| PrivateDirError::Io { path: folder.to_path_buf(), source };
    let path = CString::new(folder.as_os_str().as_bytes()).map_err(|e| io(e.into()))?;
    // SAFETY: the path is NUL-terminated.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(io(io::Error::last_os_error())),
    }
}

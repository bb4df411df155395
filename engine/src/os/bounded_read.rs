//! Files that others hand over, read with bounds: plain ones only, which neither block nor never end.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The largest binary of a policy that is read, bytes. One with all its debug information has some 30 MB.
pub const MAX_BINARY: u64 = 256 * 1024 * 1024;

/// Open a plain file to read it. Links are followed.
///
/// # Errors
/// It cannot be opened, or is something else: a folder, a pipe, a device.
pub fn open(path: &Path) -> io::Result<File> {
    // Not waiting: for whoever might open the other end of a pipe.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
    }
}

/// All that is left of a file, if that is at most `max` bytes.
///
/// # Errors
/// It cannot be read, or has more.
pub fn all(file: &File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow meanwhile; one byte too many is enough to know.
    file.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes"))),
        false => Ok(bytes),
    }
}

/// A plain file of at most `max` bytes.
///
/// # Errors
/// It cannot be read, is no plain file, or has more.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    all(&open(path)?, max)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    #[test]
    fn pipes_do_not_block_and_large_files_are_not_read() {
        let dir = std::env::temp_dir().join(format!("scx-upgrade-plain-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, pipe) = (dir.join("file"), dir.join("pipe"));
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let name = CString::new(pipe.clone().into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(read(&pipe, 5).unwrap_err().to_string().contains("no plain file"));
        assert!(read(&dir, 5).unwrap_err().to_string().contains("no plain file"));
        assert!(read(Path::new("/dev/zero"), 5).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

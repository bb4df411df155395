//! Writing archives in the `newc` cpio format, the one that a kernel unpacks as its first file system.
//!
//! Each member is a header of 110 ASCII digits, the name with a NUL, padding to four bytes, the contents, padding.
//! The end is a member called `TRAILER!!!`. Owner, group and times are all zero, so that the same input gives the
//! same bytes.

use std::io::{self, Read, Write};

/// What a member of the archive is.
pub enum Member<'a> {
    /// A folder.
    Folder,
    /// A file of exactly `size` bytes, read from `contents`.
    File {
        /// Where the contents come from.
        contents: &'a mut dyn Read,
        /// Bytes to take from `contents`; the format holds less than 4 GiB a file.
        size: u64,
    },
    /// A symbolic link to this path.
    Link(&'a str),
    /// A character device with its major and minor number.
    CharDevice(u32, u32),
}

/// An archive that is being written to `W`.
pub struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Appends one member at the absolute guest path `path` with permission bits `mode` (such as `0o755`).
    ///
    /// Folders have to come before what is in them.
    ///
    /// # Errors
    /// When writing fails, when a file's contents cannot be read or are shorter than said, or when it is 4 GiB or larger.
    pub fn append(&mut self, path: &str, mode: u32, member: Member<'_>) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        self.inode += 1;
        match member {
            Member::Folder => self.header(name, 0o040_000 | mode, 2, 0, (0, 0)),
            Member::CharDevice(major, minor) => self.header(name, 0o020_000 | mode, 1, 0, (major, minor)),
            Member::Link(target) => {
                let size = u32::try_from(target.len()).map_err(io::Error::other)?;
                self.header(name, 0o120_777, 1, size, (0, 0))?;
                self.out.write_all(target.as_bytes())?;
                self.pad(target.len() as u64)
            }
            Member::File { contents, size } => {
                let short = u32::try_from(size).map_err(|_| {
                    io::Error::other(format!("{path} is {size} bytes: a cpio member holds less than 4 GiB"))
                })?;
                self.header(name, 0o100_000 | mode, 1, short, (0, 0))?;
                let copied = io::copy(&mut contents.take(size), &mut self.out)?;
                if copied != size {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!(
                            "{path} has {copied} bytes where {size} were announced: it changed while it was read"
                        ),
                    ));
                }
                self.pad(size)
            }
        }
    }

    /// Writes the end mark and hands the writer back.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 1, 0, (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, name: &str, mode: u32, links: u32, size: u32, device: (u32, u32)) -> io::Result<()> {
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size,
            /* checksum */ 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(110 + u64::from(name_size))
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let missing = (4 - written % 4) % 4;
        self.out.write_all(&[0; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8], index: usize) -> u32 {
        let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
        u32::from_str_radix(text, 16).unwrap()
    }

    #[test]
    fn members_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.append("/bin", 0o755, Member::Folder).unwrap();
        archive.append("/bin/a", 0o755, Member::File { contents: &mut &b"hello"[..], size: 5 }).unwrap();
        archive.append("/dev-console", 0o600, Member::CharDevice(5, 1)).unwrap();
        let bytes = archive.finish().unwrap();

        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(field(&bytes, 1), 0o040_755);
        assert_eq!(&bytes[110..114], b"bin\0");

        let file = &bytes[116..];
        assert_eq!(field(file, 1), 0o100_755);
        assert_eq!(field(file, 6), 5);
        assert_eq!(&file[110..116], b"bin/a\0");
        assert_eq!(&file[116..124], b"hello\0\0\0");

        let device = &file[124..];
        assert_eq!((field(device, 1), field(device, 9), field(device, 10)), (0o020_600, 5, 1));
        assert!(bytes.windows(11).any(|part| part == b"TRAILER!!!\0"));
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let error =
            archive.append("/a", 0o644, Member::File { contents: &mut &b"abc"[..], size: 4 }).unwrap_err();
        assert!(error.to_string().contains("changed while it was read"), "{error}");
    }
}

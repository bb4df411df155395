//! The guest's file system: the files of a job, the libraries they need, and the folders that PID 1 mounts things on.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    cpio::{Archive, Member},
    elf::{self, Needed},
};

/// Where the guest's dynamic linker looks without being told to.
const LIBRARIES: &str = "/lib/x86_64-linux-gnu";

enum Entry {
    Folder,
    Host { path: PathBuf, mode: u32 },
    Bytes { contents: Vec<u8>, mode: u32 },
    Link { target: String },
    CharDevice { major: u32, minor: u32 },
}

/// A file system for the guest that is being put together. Paths are absolute, as the guest sees them.
#[derive(Default)]
pub struct Initramfs {
    // Sorted, so that a folder is written before what is in it.
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// An empty file system with `/dev/console`, where the kernel points the first program's messages.
    #[must_use]
    pub fn new() -> Self {
        let mut new = Self::default();
        new.folder("/dev");
        new.entries.insert("/dev/console".to_owned(), Entry::CharDevice { major: 5, minor: 1 });
        new
    }

    /// Adds a folder and its parents.
    pub fn folder(&mut self, guest: &str) {
        self.parents(guest);
        self.entries.entry(guest.to_owned()).or_insert(Entry::Folder);
    }

    /// Adds a file with these contents and permission bits.
    pub fn bytes(&mut self, guest: &str, contents: Vec<u8>, mode: u32) {
        self.parents(guest);
        self.entries.insert(guest.to_owned(), Entry::Bytes { contents, mode });
    }

    /// Adds a symbolic link to `target`, unless something is at `guest`.
    pub fn link(&mut self, target: &str, guest: &str) {
        self.parents(guest);
        self.entries.entry(guest.to_owned()).or_insert_with(|| Entry::Link { target: target.to_owned() });
    }

    /// Adds the file `host` of this machine with its permission bits, and if it is a dynamic ELF file the shared
    /// libraries and the interpreter that it needs.
    ///
    /// # Errors
    /// When the file or a library is missing or unreadable, or `guest` is not an absolute path of a file.
    pub fn file(&mut self, host: &Path, guest: &str) -> Result<()> {
        if !guest.starts_with('/') || guest.ends_with('/') || guest.split('/').any(|part| part == "..") {
            bail!(
                "{guest:?} is no place for a file in the guest: give an absolute path that ends in a file name"
            );
        }
        self.copy(host, guest)?;
        if !elf::is_elf(host)? {
            return Ok(());
        }
        for needed in elf::needed(host)? {
            match needed {
                Needed::Library { name, path } => self.copy(&path, &format!("{LIBRARIES}/{name}"))?,
                Needed::Interpreter(path) => self.copy(&path, &path.to_string_lossy())?,
            }
        }
        Ok(())
    }

    /// Writes the archive to the file `to`, uncompressed: the guest unpacks that fastest. Returns its size in bytes.
    ///
    /// # Errors
    /// When a file cannot be read or the archive cannot be written.
    pub fn write(&self, to: &Path) -> Result<u64> {
        let create = || format!("cannot write {}", to.display());
        let file = File::create(to).with_context(create)?;
        let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
        for (guest, entry) in &self.entries {
            match entry {
                Entry::Link { target } => archive.append(guest, 0o777, Member::Link(target)),
                Entry::Folder => archive.append(guest, 0o755, Member::Folder),
                Entry::CharDevice { major, minor } => {
                    archive.append(guest, 0o600, Member::CharDevice(*major, *minor))
                }
                Entry::Bytes { contents, mode } => {
                    let size = contents.len() as u64;
                    archive.append(guest, *mode, Member::File { contents: &mut contents.as_slice(), size })
                }
                Entry::Host { path, mode } => {
                    let mut contents =
                        File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                    let size =
                        contents.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
                    archive.append(guest, *mode, Member::File { contents: &mut contents, size })
                }
            }
            .with_context(|| format!("cannot pack {guest} into {}", to.display()))?;
        }
        let mut file = archive.finish().with_context(create)?;
        file.flush().with_context(create)?;
        Ok(file.get_ref().metadata().with_context(create)?.len())
    }

    fn copy(&mut self, host: &Path, guest: &str) -> Result<()> {
        let about =
            fs::metadata(host).with_context(|| format!("cannot bring {} into the guest", host.display()))?;
        if !about.is_file() {
            bail!("cannot bring {} into the guest: it is not a regular file", host.display());
        }
        self.parents(guest);
        let mode = about.permissions().mode() & 0o7777;
        self.entries.insert(guest.to_owned(), Entry::Host { path: host.to_owned(), mode });
        Ok(())
    }

    fn parents(&mut self, guest: &str) {
        for (at, _) in guest.match_indices('/').skip(1) {
            self.entries.entry(guest[..at].to_owned()).or_insert(Entry::Folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_its_libraries_and_parents() {
        let mut image = Initramfs::new();
        image.file(&std::env::current_exe().unwrap(), "/opt/deep/program").unwrap();
        let has = |path: &str| image.entries.contains_key(path);
        for path in
            ["/opt", "/opt/deep", "/opt/deep/program", "/lib/x86_64-linux-gnu/libc.so.6", "/dev/console"]
        {
            assert!(has(path), "{path}");
        }
        assert!(image.entries.keys().any(|path| path.contains("ld-linux")));

        image.link("/opt/deep/program", "/elsewhere/link");
        image.link("/nowhere", "/opt/deep/program");
        assert!(
            matches!(&image.entries["/elsewhere/link"], Entry::Link { target } if target == "/opt/deep/program")
        );
        assert!(matches!(image.entries["/opt/deep/program"], Entry::Host { .. }));
    }

    #[test]
    fn only_absolute_paths_of_files() {
        let own = std::env::current_exe().unwrap();
        for bad in ["bin/x", "/bin/", "/bin/../x"] {
            assert!(Initramfs::new().file(&own, bad).is_err(), "{bad}");
        }
    }
}

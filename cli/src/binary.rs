//! A policy's binary, opened once: what is looked at, what is verified and what is started are the same bytes, whatever comes
//! to its path meanwhile.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use rustix::fs::SealFlags;
use rustix::fs::fcntl_add_seals;
use rustix::fs::memfd_create;
use scx_upgrade_engine::Error;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::info::Info;
use scx_upgrade_engine::os::bounded_read;
use scx_upgrade_engine::os::bounded_read::MAX_BINARY;
use scx_upgrade_engine::os::identity::Binary;
use scx_upgrade_engine::os::identity::pid_in_proc;

use crate::failure::Failure;
use crate::trust::Trust;

/// See the module.
#[derive(Debug)]
pub struct PolicyBinary {
    given: PathBuf,
    identity: Binary,
    bytes: Vec<u8>,
    /// The file itself, or a sealed copy of it where a policy must be trusted.
    program: File,
}

impl PolicyBinary {
    /// Open it, and see that it may run on this machine.
    ///
    /// # Errors
    /// It cannot be read, or may not run here ([`TrustError`](crate::trust::TrustError)).
    pub fn open(path: &Path) -> Result<PolicyBinary, Failure> {
        PolicyBinary::open_for(path, Trust::of_this_machine()?.as_ref())
    }

    fn open_for(path: &Path, trust: Option<&Trust>) -> Result<PolicyBinary, Failure> {
        let trying = |source| Error::Io { what: format!("cannot read {}", path.display()), source };
        let file = bounded_read::open(path).map_err(trying)?;
        let program = match trust {
            None => file.try_clone().map_err(trying)?,
            Some(_) => sealed_copy(&file).map_err(|source| Error::Io {
                what: format!("cannot copy {} to run the copy", path.display()),
                source,
            })?,
        };
        // Of what is to be run: a copy can change no more.
        let bytes = bounded_read::all(&program, MAX_BINARY).map_err(trying)?;
        // By the kernel: that of the file that is open.
        let real = std::fs::read_link(fd_path(&file)).unwrap_or_else(|_| path.to_path_buf());
        let identity = Binary::from_bytes(real, &bytes);
        if let Some(trust) = trust {
            let by = trust.check(&identity, &bytes)?;
            log::info!("{} may run: {by}", identity.path.display());
        }
        Ok(PolicyBinary { given: path.to_path_buf(), identity, bytes, program })
    }

    /// Where it was when it was opened, links followed, and its hash.
    pub fn identity(&self) -> &Binary {
        &self.identity
    }

    /// The policy in it.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`]
    pub fn policy(&self) -> Result<Policy, Error> {
        Policy::from_bytes(&self.bytes, &self.given)
    }

    /// What is in it.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`], or state that no layout can take.
    pub fn info(&self) -> Result<Info, Error> {
        Info::from_bytes(&self.bytes, &self.given, self.identity.clone())
    }

    /// A path to execute it by, for this process and any other of the same user, while this value lives.
    pub fn program(&self) -> PathBuf {
        let fd = self.program.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{fd}", pid_in_proc()))
    }
}

fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A copy of a program in memory that nobody can change, this process included.
fn sealed_copy(file: &File) -> io::Result<File> {
    if file.metadata()?.permissions().mode() & 0o111 == 0 {
        // The copy would be.
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    let mut copy = File::from(memfd_create("scx-policy", flags)?);
    // What is too large is seen by who reads the copy.
    io::copy(&mut file.take(MAX_BINARY + 1), &mut copy)?;
    copy.flush()?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // A file that is open for writing is not executed.
    File::open(fd_path(&copy))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// Two programs that end with 0 and 1.
    fn programs(dir: &TempDir) -> (PathBuf, PathBuf) {
        let copy = |name: &str| {
            let found = ["/bin", "/usr/bin"].map(|dir| Path::new(dir).join(name));
            let from = found.iter().find(|path| path.exists()).unwrap();
            let to = dir.path().join(name);
            fs::copy(from, &to).unwrap();
            to
        };
        (copy("true"), copy("false"))
    }

    fn trust_of(path: &Path) -> Trust {
        let hash = Binary::of(path).unwrap().sha256;
        Trust::of_text(&format!("sha256 = [\"{hash}\"]\n"))
    }

    fn runs(binary: &PolicyBinary) -> bool {
        Command::new(binary.program()).status().unwrap().success()
    }

    #[test]
    fn what_was_verified_is_what_runs() {
        let dir = TempDir::new().unwrap();
        let (good, bad) = programs(&dir);
        let trust = trust_of(&good);
        let opened = PolicyBinary::open_for(&good, Some(&trust)).unwrap();
        let hash = opened.identity().sha256.clone();
        // Replaced, and overwritten in place.
        fs::write(&good, fs::read(&bad).unwrap()).unwrap();
        assert!(runs(&opened), "the other one ran");
        fs::rename(&bad, &good).unwrap();
        assert!(runs(&opened), "the other one ran");
        assert_eq!(Binary::from_bytes("x".into(), &fs::read(opened.program()).unwrap()).sha256, hash);
        assert_eq!(opened.identity().path, fs::canonicalize(&good).unwrap());
        assert_eq!(PolicyBinary::open_for(&good, Some(&trust)).unwrap_err().exit_code, 9);
    }

    #[test]
    fn the_copy_cannot_be_changed() {
        let dir = TempDir::new().unwrap();
        let (good, _) = programs(&dir);
        let opened = PolicyBinary::open_for(&good, Some(&trust_of(&good))).unwrap();
        let again = OpenOptions::new().write(true).open(opened.program());
        assert!(again.is_err() || again.unwrap().write_at(b"x", 0).is_err());
        assert!(opened.program.set_len(0).is_err());
    }

    #[test]
    fn without_trust_it_is_the_file_that_was_opened() {
        let dir = TempDir::new().unwrap();
        let (good, bad) = programs(&dir);
        let opened = PolicyBinary::open_for(&good, None).unwrap();
        fs::rename(&bad, &good).unwrap();
        assert!(runs(&opened), "the other one ran");
    }

    #[test]
    fn what_is_no_program_is_not_made_one() {
        let dir = TempDir::new().unwrap();
        let (good, _) = programs(&dir);
        let trust = trust_of(&good);
        fs::set_permissions(&good, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = PolicyBinary::open_for(&good, Some(&trust)).unwrap_err();
        assert!(refused.message.contains("not executable"), "{}", refused.message);
        assert!(PolicyBinary::open_for(dir.path(), None).unwrap_err().message.contains("no plain file"));
    }
}

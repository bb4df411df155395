//! Where the host lives in bpffs. What is pinned here survives every process and dies with the boot, as the scheduler
//! does. A program array in particular is wiped by the kernel when its last user-space reference goes.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::Link;
use libbpf_rs::MapHandle;
use libbpf_rs::Program;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::lock::Lock;
use crate::host::lock::PATIENCE;
use crate::host::lock::Probation;
use crate::os::private_dir::PrivateDir;

/// Where a BPF file system is expected.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Is there a BPF file system to pin in?
///
/// # Errors
/// [`Error::NoBpffs`]
pub fn check_bpffs() -> Result<()> {
    match is_bpffs(Path::new(BPFFS)) {
        true => Ok(()),
        false => Err(Error::NoBpffs { path: BPFFS.into() }),
    }
}

/// The folder of the host's pins.
#[derive(Debug, Clone)]
pub struct Pins {
    dir: PathBuf,
    patience: Duration,
}

impl Pins {
    /// Make sure that the folder is there, this user's own, mode 0700.
    ///
    /// # Errors
    /// [`Error::NoBpffs`], or [`Error::PrivateDir`] if it cannot be made or is someone else's.
    pub fn open() -> Result<Pins> {
        check_bpffs()?;
        let dir = Path::new(BPFFS).join("scx-upgrade");
        // Where bpffs is mounted for everyone to write, someone else may have made it.
        PrivateDir::at(&dir).make()?;
        Ok(Pins { dir, patience: PATIENCE })
    }

    /// The same, with another patience: how long [`Pins::lock`] waits for another command.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Pins {
        Pins { patience, ..self }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A folder of pins inside this one, for a host that is to take its place. It need not be there.
    pub(crate) fn beside(&self, name: &str) -> Pins {
        Pins { dir: self.dir.join(name), patience: self.patience }
    }

    /// Where the struct_ops link is pinned: the host is attached while this exists and the kernel has not ejected it.
    pub fn link(&self) -> PathBuf {
        self.dir.join("link")
    }

    /// Where the link of the host's program is pinned that sees tasks exit, on kernels where it has one.
    pub(crate) fn exits_link(&self) -> PathBuf {
        self.dir.join("link_exits")
    }

    /// Path of a map's pin. bpffs takes no dots in names.
    pub fn map_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("map_{}", name.trim_start_matches('.').replace('.', "_")))
    }

    /// Path of a program's pin.
    pub fn program_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("prog_{name}"))
    }

    /// Path of the pin of a policy's own program.
    pub fn policy_program_path(&self, slot: u8, name: &str) -> PathBuf {
        self.program_path(&format!("{name}_slot{slot}"))
    }

    /// Path of the pin of a map of a policy's own, the `number`th of those that are pinned. It does not begin as those of the
    /// host's maps do: a policy's map may have the name of one of them.
    pub(crate) fn policy_map_path(&self, slot: u8, number: usize, name: &str) -> PathBuf {
        self.dir.join(format!("{}{number}_{}", policy_map_prefix(slot), name.replace('.', "_")))
    }

    /// The pins of all maps of the policy in `slot`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn policy_maps(&self, slot: u8) -> Result<Vec<PathBuf>> {
        let prefix = policy_map_prefix(slot);
        let entries = fs::read_dir(&self.dir).trying(format!("cannot read {}", self.dir.display()))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
        Ok(names.filter(|name| name.starts_with(&prefix)).map(|name| self.dir.join(name)).collect())
    }

    /// The pins of a host that is to take the place of this one, complete.
    pub(crate) fn ready(&self) -> Pins {
        self.beside("ready")
    }

    /// The same while they are moved to their place.
    pub(crate) fn moving(&self) -> Pins {
        self.beside("moving")
    }

    /// Remove a pin, if it is there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn unpin(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.trying(format!("cannot unpin {}", path.display())),
        }
    }

    /// A pinned map.
    ///
    /// # Errors
    /// It is not pinned, or not readable.
    pub fn map(&self, name: &str) -> Result<MapHandle> {
        let path = self.map_path(name);
        MapHandle::from_pinned_path(&path).trying(format!("cannot open the pin {}", path.display()))
    }

    /// A pinned program.
    ///
    /// # Errors
    /// It is not pinned, or not readable.
    pub fn program(&self, name: &str) -> Result<OwnedFd> {
        self.program_at(&self.program_path(name))
    }

    /// The program that is pinned there.
    pub(crate) fn program_at(&self, path: &Path) -> Result<OwnedFd> {
        Program::fd_from_pinned_path(path).trying(format!("cannot open the pin {}", path.display()))
    }

    /// Remove every pin; the folder stays, because it is what commands lock. The link goes first: with it the
    /// scheduler ends, and nothing that it uses may go earlier.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn remove_all(&self) -> Result<()> {
        self.remove_host()?;
        self.unpin(&self.put_back_path())
    }

    /// The same, but for the pin of a scheduler that was put back: it may be all that holds that.
    pub(crate) fn remove_host(&self) -> Result<()> {
        self.retire_link()?;
        for entry in fs::read_dir(&self.dir).trying(format!("cannot read {}", self.dir.display()))? {
            let path = entry.trying("cannot read the pins")?.path();
            if path == self.put_back_path() {
                continue;
            }
            if path.is_dir() {
                Pins { dir: path, patience: self.patience }.remove()?;
                continue;
            }
            fs::remove_file(&path).trying(format!("cannot unpin {}", path.display()))?;
        }
        Ok(())
    }

    /// Detach the link, if there is one, and remove its pin. Without the first the kernel would unregister the scheduler
    /// some time after the pin is gone, and up to v6.17 that takes off whatever scheduler is attached by then
    /// (bpf_scx_unreg() disables the root scheduler, its own or not).
    pub(crate) fn retire_link(&self) -> Result<()> {
        if !self.link().exists() {
            return Ok(());
        }
        let detached = Link::open(self.link()).and_then(|link| link.detach());
        if let Err(e) = detached {
            log::debug!("cannot detach the host's link: {e}");
        }
        self.unpin(&self.link())
    }

    /// Remove every pin and the folder.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_all()?;
        fs::remove_dir(&self.dir).trying(format!("cannot remove {}", self.dir.display()))
    }

    /// Path of the pin of a scheduler of someone else's that was put back: see `foreign_scheduler.rs`.
    pub(crate) fn put_back_path(&self) -> PathBuf {
        self.dir.join("put-back")
    }

    /// Is anything pinned?
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.dir).map(|mut d| d.next().is_none()).unwrap_or(true)
    }

    /// Begin a probation: the user-space half of the policy that is about to be superseded stands by while it lasts.
    ///
    /// # Errors
    /// Its mark cannot be made.
    pub fn begin_probation(&self) -> Result<Probation> {
        Probation::begin(&self.probation())
    }

    /// Does a probation last?
    pub fn in_probation(&self) -> bool {
        Probation::lasts(&self.probation())
    }

    pub(crate) fn probation(&self) -> PathBuf {
        self.dir.join("probation")
    }

    /// Lock the folder for one command that changes something, waiting for another one for as long as these pins have
    /// patience. Held until the result is dropped; the kernel drops it with the process.
    ///
    /// # Errors
    /// [`Error::Locked`] when someone else still has it then.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.dir, self.patience)
    }
}

fn policy_map_prefix(slot: u8) -> String {
    format!("slot{slot}_map")
}

fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut buf = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` is NUL-terminated and `buf` is large enough; zeroed is a value of statfs.
    unsafe { libc::statfs(path.as_ptr(), buf.as_mut_ptr()) == 0 && buf.assume_init().f_type == BPF_FS_MAGIC }
}

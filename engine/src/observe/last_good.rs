//! The policy that ran well last, for after a boot: which binary with which arguments, and a snapshot of what it knew.
//!
//! Both are in the folder of [`crate::os::private_dir`]. Who writes them is the supervisor, `scx-upgrade recover --watch`.

use std::ffi::CStr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::host::Host;
use crate::os::identity::Binary;
use crate::os::private_dir::PrivateDir;
use crate::os::private_dir::PrivateDirError;

const NAME: &CStr = c"last-good.json";
const SNAPSHOT: &CStr = c"last-good.snapshot";
/// No such file is longer, in bytes.
const LONGEST: u64 = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Its name.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// Its binary, which is to be the same when it is started again.
    pub binary: Binary,
    /// Its arguments.
    pub args: Vec<String>,
    /// Was its host lean?
    #[serde(default)]
    pub lean: bool,
}

impl LastGood {
    /// What runs; `None` if its binary is not known.
    pub fn of(host: &Host) -> Option<LastGood> {
        let slot = host.registry.slot(host.data.active().slot)?;
        Some(LastGood {
            policy: slot.policy.clone(),
            version: slot.version.clone(),
            binary: slot.binary.clone()?,
            args: slot.own_args().to_vec(),
            lean: !host.registry.terms.spared.is_empty(),
        })
    }

    /// Write it down.
    ///
    /// # Errors
    /// It is not written; what was there is as it was.
    pub fn write(&self, folder: &PrivateDir) -> Result<(), PrivateDirError> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| folder.io(NAME, e.into()))?;
        folder.replace(NAME, &json)
    }

    /// What was written down; `None` if nothing was.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub fn read(folder: &PrivateDir) -> Result<Option<LastGood>, PrivateDirError> {
        let Some(bytes) = folder.read(NAME, LONGEST)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| folder.io(NAME, e.into()))
    }
}

/// Where the snapshot is kept.
pub fn snapshot(folder: &PrivateDir) -> PathBuf {
    folder.file(SNAPSHOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_makes_no_sense_is_told() {
        let dir = std::env::temp_dir().join(format!("scx-upgrade-last-good-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let folder = PrivateDir::at(&dir);
        assert_eq!(LastGood::read(&folder).unwrap(), None);
        let good = LastGood {
            policy: "p".into(),
            version: "1".into(),
            binary: Binary::of("/proc/self/exe".as_ref()).unwrap(),
            args: vec!["--slice-us".into(), "100".into()],
            lean: true,
        };
        good.write(&folder).unwrap();
        assert_eq!(LastGood::read(&folder).unwrap().as_ref(), Some(&good));
        std::fs::write(folder.file(NAME), "{").unwrap();
        assert!(LastGood::read(&folder).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

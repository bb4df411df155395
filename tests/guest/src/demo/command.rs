//! The real `scx-upgrade`, run as a person would, with `--json`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result, bail};
use scx_upgrade_engine::observe::report;
use scx_upgrade_engine::transition::stop::Stopped;
use serde::de::DeserializeOwned;

/// `scx-upgrade`.
#[derive(Clone, Debug)]
pub struct Command {
    binary: PathBuf,
}

impl Command {
    /// Find it as [`binary`] does.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn find() -> Result<Self> {
        Ok(Self { binary: binary("scx-upgrade")? })
    }

    /// `run` or `swap`, with a policy's binary.
    ///
    /// # Errors
    /// The command's own message.
    pub fn launch(&self, verb: &str, policy: &Path) -> Result<report::Report> {
        self.call(verb, &[policy.as_os_str()])
    }

    /// `swap` with a picture of it.
    ///
    /// # Errors
    /// The command's own message.
    pub fn draw(&self, policy: &Path, picture: &Path) -> Result<report::Report> {
        self.call("swap", &["--picture".as_ref(), picture.as_os_str(), policy.as_os_str()])
    }

    /// `rollback`.
    ///
    /// # Errors
    /// The command's own message.
    pub fn rollback(&self) -> Result<report::Report> {
        self.call("rollback", &[])
    }

    /// `stop`.
    ///
    /// # Errors
    /// The command's own message.
    pub fn stop(&self) -> Result<Stopped> {
        self.call("stop", &[])
    }

    fn call<T: DeserializeOwned>(&self, verb: &str, args: &[&OsStr]) -> Result<T> {
        let mut command = process::Command::new(&self.binary);
        // A policy is measured in the place of itself as well.
        let again = (verb == "swap").then_some("--again");
        command.arg(verb).args(again).args(args).arg("--json");
        let output = command.output().with_context(|| format!("starting {}", self.binary.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("scx-upgrade {verb} failed ({}): {} {}", output.status, said.trim(), errors.trim());
        }
        serde_json::from_str(&said).with_context(|| format!("scx-upgrade {verb} says {said:?}"))
    }
}

/// A program by name: in `PATH`, else beside this one.
///
/// # Errors
/// It is in neither.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    std::env::split_paths(&path)
        .chain(beside)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is neither in PATH nor beside this program"))
}

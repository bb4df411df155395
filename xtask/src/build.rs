//! `cargo xtask build`: all programs that run in the lab.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    artifacts::{Artifact, Kind},
    cargo,
    stage::stage,
};

/// The guest's PID 1.
const INIT: &str = "lab-init";

/// The workspace's programs, built for release.
pub struct Programs(Vec<Artifact>);

impl Programs {
    /// The path of the one called `name`.
    ///
    /// # Errors
    /// When the workspace has no such program.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let found = self.0.iter().find(|program| program.name == name);
        found.map(|program| program.path.as_path()).with_context(|| {
            let names: Vec<_> = self.0.iter().map(|program| program.name.as_str()).collect();
            format!("the workspace has no program {name}; it has {}", names.join(", "))
        })
    }

    /// The paths of all that commands in the guest may want: all but PID 1.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter(|program| program.name != INIT).map(|program| program.path.as_path())
    }

    /// The guest's PID 1.
    ///
    /// # Errors
    /// When it is missing.
    pub fn init(&self) -> Result<&Path> {
        self.path(INIT)
    }
}

/// Builds every program of the workspace but this one.
///
/// # Errors
/// When cargo fails.
pub fn all() -> Result<Programs> {
    stage("build", || {
        programs(&["build", "--release", "--workspace", "--exclude", "xtask", "--bins"]).map(Programs)
    })
}

/// Builds the program that an operator runs, for release.
///
/// # Errors
/// When cargo fails.
pub fn cli() -> Result<PathBuf> {
    stage("build", || {
        let built =
            Programs(programs(&["build", "--release", "--package", "scx-upgrade", "--bin", "scx-upgrade"])?);
        built.path("scx-upgrade").map(Path::to_owned)
    })
}

/// Builds the guest's PID 1 only.
///
/// # Errors
/// When cargo fails.
pub fn init() -> Result<PathBuf> {
    let built = Programs(programs(&["build", "--release", "--package", "lab", "--bin", INIT])?);
    built.init().map(Path::to_owned)
}

fn programs(arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut built = cargo::executables(arguments)?;
    built.retain(|artifact| artifact.kind == Kind::Binary);
    Ok(built)
}

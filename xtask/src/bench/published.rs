//! Schedulers as the scx project publishes them, built once into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::{cargo, stage::stage};

/// A published scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Scheduler {
    /// Its crate, and its program.
    pub name: &'static str,
    /// The crate's version.
    pub version: &'static str,
}

/// The one that runs and the one that is switched to. Both are on scx_utils 1.1.4, as this project is, and take the same
/// set-up to build. scx_loader's automatic mode starts both without arguments, and so does the bench.
pub const SCHEDULERS: [Scheduler; 2] =
    [Scheduler { name: "scx_cosmos", version: "1.1.7" }, Scheduler { name: "scx_flash", version: "1.1.4" }];

impl Scheduler {
    /// Name and version.
    pub fn title(self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Its program, built unless it is in `cache`.
    ///
    /// # Errors
    /// When it cannot be had or does not build.
    pub fn obtain(self, cache: &Path) -> Result<PathBuf> {
        let Self { name, version } = self;
        let root = cache.join("bench-schedulers").join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        if !program.is_file() {
            stage(&self.title(), || {
                let (root, what) = (root.to_string_lossy(), format!("{name}@{version}"));
                // In one folder: most of what they are built of is the same.
                let target = cargo::root().join("target/bench-schedulers");
                let target = target.to_string_lossy();
                cargo::run(
                    &["install", "--locked", "--no-track", "--target-dir", &target, "--root", &root, &what],
                    &[],
                )
            })?;
            ensure!(
                program.is_file(),
                "{name} {version} was installed, yet there is no {}",
                program.display()
            );
        }
        Ok(program)
    }
}

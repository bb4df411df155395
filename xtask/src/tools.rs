//! Programs that a verb needs, as published, of one version, in the cache.

use std::path::PathBuf;

use anyhow::{Context, Result};
use lab::cache;

use crate::{cargo, stage::stage};

/// Makes the Debian package.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
/// Without xz, which takes a compiler for C and longer to pack: packages are a little larger.
const FEATURES: &[&str] = &["--no-default-features", "--features", "gzip"];

/// Where cargo-deb is. Installs it where it is not there yet, which takes about a minute.
///
/// # Errors
/// When it cannot be had: the registry cannot be reached, say.
pub fn cargo_deb() -> Result<PathBuf> {
    let (name, version) = CARGO_DEB;
    let root = cache::folder()?.join("tools").join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    stage(&format!("{name} {version}"), || {
        let to = root.to_str().context("the cache's path is not UTF-8")?;
        // For development: it packs few files, and optimising it would take longer than it ever saves.
        let own = ["install", "--locked", "--debug", "--root", to, "--version", version, name];
        cargo::run(&[&own, FEATURES].concat(), &[("CARGO_PROFILE_DEV_DEBUG", "0")])
            .with_context(|| format!("{name} {version} cannot be installed"))
    })?;
    Ok(program)
}

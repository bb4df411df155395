//! `cargo xtask setup`: packages and a kernel.

use anyhow::Result;
use clap::Args;
use lab::{cache, kernel, setup};

use crate::stage::stage;

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// The kernel to get: a version such as 7.3.4, the start of one such as 7.0, or the path of an image.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// When something that is missing cannot be had.
pub fn run(options: &Options) -> Result<()> {
    packages(true)?;
    stage("kernel", || {
        let kernel = kernel::obtain(&cache::folder()?, options.kernel.as_deref())?;
        eprintln!("setup: kernel {} is at {}", kernel.version, kernel.image.display());
        Ok(())
    })
}

/// Installs the packages that are missing, with the emulator if wanted.
///
/// # Errors
/// When one cannot be installed.
pub fn packages(emulator: bool) -> Result<()> {
    stage("packages", || setup::packages(&cache::folder()?, emulator))
}

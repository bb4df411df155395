//! The folder outside the repository where kernels, package lists and the traces of past runs are kept.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The cache folder: `$SCX_UPGRADE_CACHE`, else `$XDG_CACHE_HOME/scx-upgrade`, else `~/.cache/scx-upgrade`.
///
/// It is created when it does not exist. Everything in it can be had again, so it may be deleted at any time that
/// no lab runs.
///
/// # Errors
/// When none of the variables (nor `HOME`) is set, or the folder cannot be made.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = choose(set("SCX_UPGRADE_CACHE"), set("XDG_CACHE_HOME"), set("HOME"));
    let Some(folder) = folder else {
        bail!(
            "no place for the lab's cache: HOME is not set; set SCX_UPGRADE_CACHE to a folder of your choice"
        );
    };
    let folder =
        std::path::absolute(&folder).with_context(|| format!("cannot resolve {}", folder.display()))?;
    create(&folder)?;
    Ok(folder)
}

/// Which of the places that the environment names wins.
fn choose(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    own.or_else(|| xdg.map(|folder| folder.join("scx-upgrade")))
        .or_else(|| home.map(|folder| folder.join(".cache/scx-upgrade")))
}

/// Creates `folder` and its parents; not an error when it is there.
///
/// # Errors
/// When the file system refuses; the message names the folder and the way out.
pub fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot create {}: make it writable, or set SCX_UPGRADE_CACHE to another folder",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variable_wins_then_xdg_then_home() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(path("/own"), path("/xdg"), path("/home")), path("/own"));
        assert_eq!(choose(None, path("/xdg"), path("/home")), path("/xdg/scx-upgrade"));
        assert_eq!(choose(None, None, path("/home")), path("/home/.cache/scx-upgrade"));
        assert_eq!(choose(None, None, None), None);
    }
}

//! The package, installed by the real dpkg in a throw-away root: run, upgraded, removed and purged. It needs no root; the
//! machine's own packages are not touched.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{make, run_quietly, text};
use crate::{stage::stage, tools};

/// What must be there when it is installed, from the root.
const FILES: &[&str] = &[
    "usr/bin/scx-upgrade",
    "usr/share/man/man1/scx-upgrade.1.gz",
    "usr/share/man/man1/scx-upgrade-swap.1.gz",
    "usr/share/bash-completion/completions/scx-upgrade",
    "usr/share/zsh/vendor-completions/_scx-upgrade",
    "usr/share/fish/vendor_completions.d/scx-upgrade.fish",
    "usr/lib/systemd/system/scx-upgrade-recover.service",
    "usr/share/doc/scx-upgrade/copyright",
];
/// What is root's own, and goes with a purge only.
const OWN: &[&str] = &["etc/scx-upgrade/trust.toml", "var/lib/scx-upgrade/history"];

/// Whether there is what it takes: dpkg, which a machine that is not Debian's has not, and cargo-deb.
///
/// # Errors
/// Why not.
pub fn needs() -> Result<PathBuf> {
    run_quietly(Command::new("dpkg").arg("--version")).context("there is no dpkg")?;
    tools::cargo_deb()
}

/// Makes two revisions of the package of `program`, which is built, and does all of it.
///
/// # Errors
/// When one of the steps fails, or anything is left.
pub fn check(program: &Path) -> Result<()> {
    let cargo_deb = needs()?;
    let (first, second) = (make(&cargo_deb, program, "1")?, make(&cargo_deb, program, "2")?);
    stage("package in a throw-away root", || {
        let root = Root::new()?;
        let empty = root.files()?;

        root.dpkg(&["--install"], Some(&first))?;
        for file in FILES {
            ensure!(root.at(file).is_file(), "{file} is not installed");
        }
        let says = text(Command::new(root.at("usr/bin/scx-upgrade")).arg("--version"))?;
        ensure!(says.starts_with("scx-upgrade "), "the program says {says:?}");
        let unit = fs::read_to_string(root.at("usr/lib/systemd/system/scx-upgrade-recover.service"))?;
        ensure!(
            unit.contains("ExecStart=/usr/bin/scx-upgrade recover --watch"),
            "the unit starts something else"
        );
        ensure!(!root.at("etc/systemd").exists(), "a unit is enabled that nobody asked for");
        for file in OWN {
            let file = root.at(file);
            fs::create_dir_all(file.parent().unwrap_or(&root.0))?;
            fs::write(file, "root's own\n")?;
        }

        root.dpkg(&["--install"], Some(&second))?;
        ensure!(root.version()?.ends_with("-2"), "after the upgrade it is version {}", root.version()?);
        text(Command::new(root.at("usr/bin/scx-upgrade")).arg("--version"))?;
        root.keeps_its_own("an upgrade")?;

        root.dpkg(&["--remove", "scx-upgrade"], None)?;
        for file in FILES {
            ensure!(!root.at(file).exists(), "{file} is left after the removal");
        }
        root.keeps_its_own("the removal")?;

        root.dpkg(&["--purge", "scx-upgrade"], None)?;
        let left: Vec<_> = root.files()?.difference(&empty).cloned().collect();
        ensure!(left.is_empty(), "left after the purge: {left:?}");
        Ok(())
    })
}

/// A root for dpkg, removed with the value.
struct Root(PathBuf);

impl Root {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("scx-upgrade-package-{}", std::process::id()));
        let root = Self(path);
        for folder in ["etc", "usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"] {
            fs::create_dir_all(root.at(folder)).with_context(|| format!("cannot create {folder}"))?;
        }
        fs::write(root.at("var/lib/dpkg/status"), "")?;
        Ok(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Runs dpkg there. What the package depends on is this machine's, and not there; its scripts are told where the root
    /// is, in place of a `chroot`, which takes root and a shell inside.
    fn dpkg(&self, verb: &[&str], file: Option<&Path>) -> Result<()> {
        let root = format!("--root={}", self.0.display());
        let log = format!("--log={}", self.at("var/lib/dpkg/log").display());
        let force = "--force-not-root,script-chrootless,depends,bad-path";
        let mut command = Command::new("dpkg");
        command.args([&root, &log, force]).args(verb).args(file).env("LC_ALL", "C");
        run_quietly(&mut command)
    }

    fn version(&self) -> Result<String> {
        let admin = format!("--admindir={}", self.at("var/lib/dpkg").display());
        let query = ["--show", "--showformat=${Version}", "scx-upgrade"];
        text(Command::new("dpkg-query").arg(admin).args(query))
    }

    fn keeps_its_own(&self, after: &str) -> Result<()> {
        for file in OWN {
            let kept = fs::read_to_string(self.at(file));
            ensure!(kept.is_ok_and(|text| text == "root's own\n"), "{file} is gone or changed after {after}");
        }
        Ok(())
    }

    /// All that is there, but for dpkg's own books.
    fn files(&self) -> Result<BTreeSet<PathBuf>> {
        let (mut found, mut folders) = (BTreeSet::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry?;
                let path = entry.path();
                if path == self.at("var/lib/dpkg") {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path);
            }
        }
        if found.is_empty() {
            bail!("the throw-away root is empty");
        }
        Ok(found)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // In the folder for temporary files, where it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

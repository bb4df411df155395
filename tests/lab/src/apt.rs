//! A private apt: package lists of our own, so that the system's sources stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::cache;

/// Debian's own signing keys, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of an archive to take packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    archive: &'static str,
    suite: String,
}

impl Source {
    /// A suite of Debian's main archive, such as `trixie-backports`.
    #[must_use]
    pub fn debian(suite: &str) -> Self {
        Self { archive: "http://deb.debian.org/debian", suite: suite.to_owned() }
    }

    /// A suite of Debian's security archive, such as `bookworm-security`.
    #[must_use]
    pub fn security(suite: &str) -> Self {
        Self { archive: "http://deb.debian.org/debian-security", suite: suite.to_owned() }
    }

    fn line(&self) -> String {
        format!("deb [signed-by={KEYRING}] {} {} main\n", self.archive, self.suite)
    }
}

/// An apt that sees only its own sources. It does know which packages the system has, so installing works.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
    config: PathBuf,
}

impl PrivateApt {
    /// Sets one up in `folder`. One that is there is kept, with its lists.
    ///
    /// # Errors
    /// When Debian's keyring is missing or the folder cannot be written.
    pub fn create(folder: &Path, sources: &[Source]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing, so packages could not be checked: install debian-archive-keyring");
        }
        cache::create(&folder.join("lists/partial"))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display())).map(|()| path)
        };
        let list = write("sources.list", &sources.iter().map(Source::line).collect::<String>())?;
        let config = write("apt.conf", &configuration(&list, &folder.join("lists")))?;
        Ok(Self { folder: folder.to_owned(), config })
    }

    /// Fetches the package lists. Shows apt's progress.
    ///
    /// # Errors
    /// When apt fails, as it does without a network.
    pub fn update(&self) -> Result<()> {
        let status = self.get().args(["update", "--error-on=any"]).status().context("cannot run apt-get")?;
        if !status.success() {
            bail!("the package lists could not be fetched from deb.debian.org (apt-get update: {status})");
        }
        Ok(())
    }

    /// The names of all packages in the lists.
    ///
    /// # Errors
    /// When apt fails.
    pub fn package_names(&self) -> Result<Vec<String>> {
        let run = Command::new("apt-cache")
            .args(self.options())
            .arg("pkgnames")
            .output()
            .context("cannot run apt-cache")?;
        if !run.status.success() {
            bail!("apt-cache pkgnames failed: {}", String::from_utf8_lossy(&run.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads a package into the empty folder `into` and returns the file. apt checks it against the signed lists.
    ///
    /// # Errors
    /// When apt fails.
    pub fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        let status = self
            .get()
            .args(["download", package])
            .current_dir(into)
            .status()
            .context("cannot run apt-get")?;
        if !status.success() {
            bail!("apt-get download {package} failed ({status})");
        }
        let entries = fs::read_dir(into).with_context(|| format!("cannot read {}", into.display()))?;
        let mut debs = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "deb"));
        debs.next().with_context(|| format!("apt-get download {package} left no file"))
    }

    /// The options that make an apt program use this configuration. They survive sudo, which clears the environment.
    #[must_use]
    pub fn options(&self) -> [String; 2] {
        ["-c".to_owned(), self.config.to_string_lossy().into_owned()]
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(self.options()).current_dir(&self.folder);
        command
    }
}

fn configuration(list: &Path, lists: &Path) -> String {
    let (list, lists) = (list.display(), lists.display());
    format!(
        "Dir::Etc::sourcelist \"{list}\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{lists}\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"2\";\n\
         Acquire::http::Timeout \"30\";\n\
         // What the machine does after its own updates does not concern ours.\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         // The user that apt downloads as cannot reach a folder in somebody's home.\n\
         APT::Sandbox::User \"root\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_signed_and_public() {
        assert_eq!(
            Source::debian("trixie-backports").line(),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://deb.debian.org/debian trixie-backports main\n"
        );
        assert!(
            Source::security("bookworm-security").line().contains("/debian-security bookworm-security main")
        );
    }

    #[test]
    fn the_configuration_hides_the_systems_sources() {
        let text = configuration(Path::new("/c/sources.list"), Path::new("/c/lists"));
        for line in [
            "Dir::Etc::sourcelist \"/c/sources.list\";",
            "Dir::Etc::sourceparts \"-\";",
            "Dir::State::lists \"/c/lists\";",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}

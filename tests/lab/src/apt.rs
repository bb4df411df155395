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

/// Debian's own suites are of these releases, by codename or by age.
const RELEASES: [&str; 9] =
    ["bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing", "unstable", "experimental"];
/// What an archive calls itself in its release files.
const DEBIAN: &str = "Debian";

/// The archives of Debian that this machine's own apt takes packages from: mirrors, as far as it is set up for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archives {
    main: String,
    security: Option<String>,
}

impl Archives {
    /// Reads apt's configuration. Needs no package lists and no network.
    ///
    /// # Errors
    /// When apt cannot be run, or takes nothing from Debian's main archive.
    pub fn of_this_machine() -> Result<Self> {
        // The first knows the origin of archives whose lists apt has, the second knows those without lists too.
        let targets = index_targets(&[])? + &index_targets(&["--no-release-info"])?;
        Self::parse(&targets).context(
            "apt on this machine takes no packages from an archive of Debian's: add one to its sources, or give the lab a \
             kernel's image with --kernel",
        )
    }

    /// Finds them in lines of an archive's address, suite, component and, where apt has the lists, origin.
    fn parse(targets: &str) -> Option<Self> {
        // An archive whose origin is known comes before one of which nothing is known yet.
        let find = |is_wanted: &dyn Fn(&str) -> bool| {
            let known =
                targets.lines().filter_map(Target::parse).filter(|t| t.is_debian() && is_wanted(t.suite));
            known.min_by_key(|t| t.origin.is_none()).map(|t| t.archive.to_owned())
        };
        let main = find(&|suite| !is_security(suite))?;
        Some(Self { main, security: find(&is_security) })
    }

    /// A suite of the main archive, such as `trixie-backports`.
    #[must_use]
    pub fn debian(&self, suite: &str) -> Source {
        Source { archive: self.main.clone(), suite: suite.to_owned() }
    }

    /// A suite of the security archive, such as `bookworm-security`, if this machine uses one.
    #[must_use]
    pub fn security(&self, suite: &str) -> Option<Source> {
        self.security.as_ref().map(|archive| Source { archive: archive.clone(), suite: suite.to_owned() })
    }
}

/// The indexes of packages that apt fetches, a line each: address of the archive, suite, component and origin.
fn index_targets(options: &[&str]) -> Result<String> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)";
    let run = Command::new("apt-get")
        .arg("indextargets")
        .args(options)
        .args(["--format", format, "Created-By: Packages"])
        .output()
        .context("cannot run apt-get")?;
    if !run.status.success() {
        bail!("apt-get indextargets failed: {}", String::from_utf8_lossy(&run.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// An index of packages that apt fetches.
struct Target<'a> {
    archive: &'a str,
    suite: &'a str,
    component: &'a str,
    origin: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (archive, rest) = line.split_once(' ')?;
        let (suite, rest) = rest.split_once(' ')?;
        let (component, origin) = rest.split_once(' ').unwrap_or((rest, ""));
        // apt leaves a field that it does not know as it stands in the format.
        let origin = Some(origin.trim()).filter(|o| !o.is_empty() && !o.starts_with('$'));
        Some(Self { archive: archive.trim_end_matches('/'), suite, component, origin })
    }

    /// Others use Debian's codenames for their suites too, so the origin decides where it is known. Where it is not, a wrong
    /// guess is an error and no more: packages are checked with Debian's keys.
    fn is_debian(&self) -> bool {
        let release = self.suite.split(['-', '/']).next().unwrap_or_default();
        self.component == "main"
            && RELEASES.contains(&release)
            && self.origin.is_none_or(|origin| origin == DEBIAN)
            // A disc has no backports.
            && !self.archive.starts_with("cdrom:")
    }
}

/// `bookworm-security`, and `buster/updates` as it was called before.
fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

/// A suite of an archive to take packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    archive: String,
    suite: String,
}

impl Source {
    fn line(&self) -> String {
        format!("deb [signed-by={KEYRING}] {} {} main\n", self.archive, self.suite)
    }
}

/// An apt that sees only its own sources. It does know which packages the system has, so installing works.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
    config: PathBuf,
    archives: String,
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
        let mut archives: Vec<&str> = sources.iter().map(|source| source.archive.as_str()).collect();
        archives.dedup();
        Ok(Self { folder: folder.to_owned(), config, archives: archives.join(" and ") })
    }

    /// Fetches the package lists. Shows apt's progress.
    ///
    /// # Errors
    /// When apt fails, as it does without a network.
    pub fn update(&self) -> Result<()> {
        let status = self.get().args(["update", "--error-on=any"]).status().context("cannot run apt-get")?;
        if !status.success() {
            bail!("the package lists could not be fetched from {} (apt-get update: {status})", self.archives);
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

    fn archives(targets: &str) -> Option<(String, Option<String>)> {
        Archives::parse(targets).map(|found| (found.main, found.security))
    }

    #[test]
    fn archives_are_those_that_the_machine_uses() {
        let targets = "http://mirror.example/debian/ bookworm main Debian\n\
                       http://mirror.example/debian/ bookworm-updates main Debian\n\
                       http://other.example/debian-security/ bookworm-security main Debian\n";
        let (main, security) =
            ("http://mirror.example/debian".to_owned(), "http://other.example/debian-security".to_owned());
        assert_eq!(archives(targets), Some((main.clone(), Some(security))));
        // Before the first `apt-get update` apt knows no origin.
        let no_lists = "http://mirror.example/debian/ stable main $(ORIGIN)\n";
        assert_eq!(archives(no_lists), Some((main, None)));
        let found = Archives::parse(targets).unwrap();
        assert_eq!(
            found.debian("trixie-backports").line(),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie-backports \
             main\n"
        );
        assert!(
            found
                .security("bookworm-security")
                .unwrap()
                .line()
                .ends_with("/debian-security bookworm-security main\n")
        );
    }

    #[test]
    fn what_is_not_debians_is_no_archive_of_it() {
        let others = "https://a.example/apt/ cloud-sdk-bookworm main Cloud\n\
                      https://b.example/apt/ bookworm main Another\n\
                      https://c.example/apt/ bookworm stable Debian\n\
                      cdrom:[Debian 12]/ bookworm main Debian\n\
                      https://d.example/node/ nodistro main $(ORIGIN)\n\
                      nonsense\n\n";
        assert_eq!(archives(others), None);
        assert_eq!(archives(""), None);
        // One of which nothing is known comes after one that says what it is.
        let targets = "https://e.example/apt/ trixie main \nhttps://f.example/debian/ trixie main Debian\n";
        assert_eq!(archives(targets), Some(("https://f.example/debian".to_owned(), None)));
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

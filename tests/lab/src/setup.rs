//! What the project needs of the machine, and installing what of it is missing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{Archives, PrivateApt},
    qemu,
};

/// Debian packages that building needs.
pub const BUILD_PACKAGES: &[&str] =
    &["clang-19", "libclang-19-dev", "libelf-dev", "zlib1g-dev", "pkg-config", "gcc", "make", "libc6-dev"];
/// The Debian package with the emulator.
pub const QEMU_PACKAGE: &str = "qemu-system-x86";

/// Installs what of the build packages (and, if `emulator`, of QEMU 10 or newer) is missing. Says what it does; does
/// nothing and needs no network when nothing is missing.
///
/// On Debian 12 QEMU comes from `bookworm-backports` by a private apt configuration in `cache`: the system's
/// sources are never edited. On other systems than Debian it only says what is needed.
///
/// # Errors
/// When apt fails, or root's rights are needed and there is no sudo.
pub fn packages(cache: &Path, emulator: bool) -> Result<()> {
    let release = Release::read();
    if !release.is_debian() || !Path::new("/usr/bin/dpkg-query").exists() {
        return only_tell(emulator);
    }
    let mut missing: Vec<&str> = BUILD_PACKAGES.iter().copied().filter(|name| !is_installed(name)).collect();
    let needs_qemu = emulator && qemu::installed().is_none_or(|major| major < qemu::OLDEST);
    let qemu_from_backports = needs_qemu && release.version == "12";
    if needs_qemu && !qemu_from_backports {
        missing.push(QEMU_PACKAGE);
    }
    if missing.is_empty() && !needs_qemu {
        eprintln!("setup: all packages are installed");
        return Ok(());
    }
    if !is_root() && !has_sudo() {
        let backports = if qemu_from_backports {
            Some("qemu-system-x86 (10 or newer, from bookworm-backports)")
        } else {
            None
        };
        let all: Vec<&str> = missing.iter().copied().chain(backports).collect();
        bail!(
            "root's rights are needed to install packages, and there is no sudo. As root, install: {}",
            all.join(", ")
        );
    }
    if !missing.is_empty() {
        eprintln!("setup: installing {}", missing.join(", "));
        install_from_system(&missing)?;
    }
    if qemu_from_backports {
        eprintln!("setup: installing {QEMU_PACKAGE} {} from bookworm-backports", qemu::OLDEST);
        install_from_backports(cache)?;
    }
    if needs_qemu {
        match qemu::installed() {
            Some(major) if major >= qemu::OLDEST => {}
            Some(major) => bail!(
                "{} is version {major} after installing {QEMU_PACKAGE}, and {} or newer is needed: is another one \
                 earlier in PATH?",
                qemu::PROGRAM,
                qemu::OLDEST
            ),
            None => bail!("{QEMU_PACKAGE} was installed, yet {} does not run", qemu::PROGRAM),
        }
    }
    Ok(())
}

/// What `/etc/os-release` says.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    id: String,
    version: String,
}

impl Release {
    fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        Self { id: value("ID"), version: value("VERSION_ID") }
    }

    fn is_debian(&self) -> bool {
        self.id == "debian"
    }
}

fn only_tell(emulator: bool) -> Result<()> {
    let emulator =
        if emulator { format!(", and {} {} or newer", qemu::PROGRAM, qemu::OLDEST) } else { String::new() };
    eprintln!(
        "setup: this is not Debian 12 or 13, so nothing is installed here. See to it that you have clang 18 or newer with \
         libclang, the development files of libelf and zlib, pkg-config, gcc and make{emulator}"
    );
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let run = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]).output();
    run.is_ok_and(|run| run.status.success() && says_installed(&String::from_utf8_lossy(&run.stdout)))
}

/// A package for several architectures has a line for each.
fn says_installed(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "installed")
}

/// Installs from the system's own sources, whose lists may be absent (as in a container) or out of date.
fn install_from_system(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend_from_slice(packages);
        apt_get_as_root(&[], &arguments)
    };
    if packages.iter().all(|package| has_candidate(package)) && install().is_ok() {
        return Ok(());
    }
    eprintln!("setup: the system's package lists are missing or old: updating them");
    if let Err(error) = apt_get_as_root(&[], &["update"]) {
        // One bad source among many does not matter if the packages are there.
        eprintln!("setup: {error:#}; going on with what there is");
    }
    install().with_context(|| {
        format!(
            "{} could not be installed: see apt's message above, install them by hand, and run this again",
            packages.join(", ")
        )
    })
}

fn has_candidate(package: &str) -> bool {
    let run = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    run.is_ok_and(|run| names_candidate(&String::from_utf8_lossy(&run.stdout)))
}

fn names_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|version| version != "(none)")
}

fn install_from_backports(cache: &Path) -> Result<()> {
    let archives = Archives::of_this_machine()?;
    let suites = ["bookworm", "bookworm-updates", "bookworm-backports"].map(|suite| archives.debian(suite));
    let sources: Vec<_> = suites.into_iter().chain(archives.security("bookworm-security")).collect();
    let apt = PrivateApt::create(&cache.join("apt/bookworm"), &sources)?;
    apt.update()?;
    apt_get_as_root(
        &apt.options(),
        &["install", "-y", "--no-install-recommends", "-t", "bookworm-backports", QEMU_PACKAGE],
    )
}

/// Runs apt-get with the rights it needs, its progress in view.
fn apt_get_as_root(options: &[String], arguments: &[&str]) -> Result<()> {
    // Variables go through `env`, because sudo drops them.
    let line = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"].map(str::to_owned);
    let mut line: Vec<String> = line.into_iter().chain(options.iter().cloned()).collect();
    line.extend(arguments.iter().map(|&argument| argument.to_owned()));
    if !is_root() {
        line.insert(0, "sudo".to_owned());
    }
    let status = Command::new(&line[0])
        .args(&line[1..])
        .status()
        .with_context(|| format!("cannot run {}", line[0]))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line.join(" "));
    }
    Ok(())
}

fn has_sudo() -> bool {
    Command::new("sudo").arg("--version").output().is_ok_and(|run| run.status.success())
}

fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        let debian = Release::parse("PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n");
        assert!(debian.is_debian());
        assert_eq!(debian.version, "12");
        assert!(!Release::parse("ID=ubuntu\nID_LIKE=debian\n").is_debian());
        assert!(!Release::parse("").is_debian());
    }

    #[test]
    fn only_installed_packages_count() {
        assert!(says_installed("installed\n"));
        assert!(says_installed("not-installed\ninstalled\n"));
        assert!(!says_installed("config-files\n"));
        assert!(!says_installed("not-installed\n"));
    }

    #[test]
    fn candidates_are_seen() {
        assert!(names_candidate("gcc:\n  Installed: (none)\n  Candidate: 4:12.2.0-3\n"));
        assert!(!names_candidate("gcc:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!names_candidate(""));
    }
}

//! `cargo xtask package`: the Debian package, with its manual pages and completions.

mod check;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

pub use check::{check, needs};

use crate::{build, cargo, stage::stage, tools};

/// Shells that the package has completions for, by the name that the program has for them.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];
/// Where the package and what is made for it go, from the workspace's folder: as `cli/Cargo.toml` has it. Not in
/// `target/release`, of which cargo-deb compresses nothing.
const FOLDER: &str = "target/package";
/// Pages are named after the program and the verb.
const PAGE: &str = "scx-upgrade-";

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// Install, upgrade, remove and purge it in a throw-away root.
    #[arg(long)]
    check: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the package cannot be made, or is not as it should be.
pub fn run(options: &Options) -> Result<()> {
    let program = build::cli()?;
    if options.check {
        return check(&program);
    }
    let package = make(&tools::cargo_deb()?, &program, "1")?;
    println!("{}", package.display());
    Ok(())
}

/// Makes the package of `program`, which is built for release. `revision` is the package's own, behind the version.
///
/// # Errors
/// When a page cannot be had or cargo-deb fails.
fn make(cargo_deb: &Path, program: &Path, revision: &str) -> Result<PathBuf> {
    stage(&format!("package, revision {revision}"), || {
        let folder = cargo::root().join(FOLDER);
        pages(program, &folder.join("man"))?;
        completions(program, &folder.join("completions"))?;
        let to = folder.join(format!("scx-upgrade-{revision}.deb"));
        let mut command = Command::new(cargo_deb);
        command
            .args(["--no-build", "--no-strip", "--fast", "--package", "scx-upgrade"])
            .args(["--deb-revision", revision, "--output"])
            .arg(&to)
            .current_dir(cargo::root());
        run_quietly(&mut command)?;
        Ok(to)
    })
}

/// The manual pages: one of the whole and one of each verb that it names.
fn pages(program: &Path, to: &Path) -> Result<()> {
    anew(to)?;
    let page = |verb: Option<&str>| text(Command::new(program).arg("man").args(verb));
    let whole = page(None)?;
    let verbs = verbs(&whole);
    if verbs.is_empty() {
        bail!("the manual page names no verb");
    }
    write(&to.join("scx-upgrade.1"), &whole)?;
    for verb in verbs {
        write(&to.join(format!("{PAGE}{verb}.1")), &page(Some(&verb))?)?;
    }
    Ok(())
}

/// The verbs that a page refers to, as `scx\-upgrade\-swap(1)`.
fn verbs(page: &str) -> Vec<String> {
    let plain = page.replace("\\-", "-");
    let mut verbs: Vec<_> = plain
        .split_whitespace()
        .filter_map(|word| Some(word.strip_prefix(PAGE)?.split_once("(1)")?.0.to_owned()))
        // Its page would say how to ask for pages.
        .filter(|verb| verb != "help")
        .collect();
    verbs.dedup();
    verbs
}

fn completions(program: &Path, to: &Path) -> Result<()> {
    anew(to)?;
    for shell in SHELLS {
        let script = text(Command::new(program).args(["completions", shell]))?;
        write(&to.join(format!("scx-upgrade.{shell}")), &script)?;
    }
    Ok(())
}

/// An empty folder: what an earlier build left is not to be packed.
fn anew(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a command prints.
fn text(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} prints no UTF-8"))
}

/// Runs a command, and shows what it printed only where it fails.
fn run_quietly(command: &mut Command) -> Result<()> {
    text(command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_found_in_a_page() {
        let page = ".TP\nscx\\-upgrade\\-run(1)\nStart\n.TP\nscx\\-upgrade\\-swap(1)\n.TP\nscx\\-upgrade\\-help(1)\n\
                    scx\\-upgrade(1) no\n";
        assert_eq!(verbs(page), ["run", "swap"]);
        assert!(verbs("").is_empty());
    }
}

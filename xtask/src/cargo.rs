//! Calling cargo, in the workspace's folder: its configuration there names the compiler that the BPF programs need.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    artifacts::{self, Artifact},
    tally::Tally,
};

/// The workspace's folder.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Runs `cargo` with these arguments and variables.
///
/// # Errors
/// When it cannot be started or fails; it has said why itself.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let child = command(arguments).envs(variables.iter().copied()).spawn().context("cannot run cargo")?;
    finished(child, arguments)
}

/// Runs `cargo` with these arguments, shows what it prints, and adds the results of tests in it to `tally`.
///
/// # Errors
/// When cargo cannot be started or fails, as it does when a test fails.
pub fn run_tests(arguments: &[&str], tally: &mut Tally) -> Result<()> {
    let mut child = command(arguments).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    if let Some(pipe) = child.stdout.take() {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).context("cannot read what cargo prints")? > 0 {
            tally.feed(&line);
            std::io::stdout().write_all(&line).context("cannot write to the standard output")?;
            line.clear();
        }
    }
    finished(child, arguments)
}

/// Runs `cargo` with these arguments and lists the programs that it built (or found up to date).
///
/// # Errors
/// When it cannot be started or fails.
pub fn executables(arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut child = command(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut found = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            found.extend(artifacts::parse(&line.context("cannot read cargo's messages")?));
        }
    }
    finished(child, arguments)?;
    Ok(found)
}

fn finished(mut child: Child, arguments: &[&str]) -> Result<()> {
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn command(arguments: &[&str]) -> Command {
    // The cargo that runs us, so that a toolchain chosen by +NAME stays.
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_parent() {
        assert!(root().join("xtask/Cargo.toml").is_file());
    }
}

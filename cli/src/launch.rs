//! Start a policy's process, detached, and wait for its word on whether it took over.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::clock::monotonic_ns;
use scx_upgrade_sdk::folder::Folder;
use scx_upgrade_sdk::logger;
use scx_upgrade_sdk::report::Report;
use scx_upgrade_sdk::run::BINARY;
use scx_upgrade_sdk::run::LOCK_TIMEOUT;
use scx_upgrade_sdk::run::ONLY;
use scx_upgrade_sdk::run::Outcome;
use scx_upgrade_sdk::run::REPORT_FD;

use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::unit;

/// Where the output of policies' processes goes. In memory, and gone with the boot, as they are.
const LOGS: &str = "/run/scx-upgrade";
/// A log is so long at most, bytes. One who prints for ever must not fill the memory: the kernel ends it, and its BPF half
/// runs on.
const LONGEST_LOG: u64 = 64 * 1024 * 1024;
/// So much of its end is shown of what a policy printed, bytes.
const SHOWN: u64 = 16 * 1024;

/// What a policy is started for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// Options of the SDK that go before the policy's.
    pub own: &'a [&'a str],
    /// `run` or `swap`: it is not to come to the other. Or `attend`.
    pub only: &'a str,
    /// How long to wait for another command, seconds.
    pub timeout: u64,
    /// As a unit of its own, where systemd runs: see [`crate::unit`].
    pub unit: bool,
}

/// Start it; its report when it took over. It goes on in the background.
pub fn launch(binary: &PolicyBinary, args: &[String], purpose: Purpose<'_>) -> Result<Report, Failure> {
    match start(binary, args, purpose)? {
        Outcome::Done(report) => Ok(*report),
        other => Err(senseless(&other)),
    }
}

/// Start it to be the process of the policy that runs; its id.
pub fn attend(binary: &PolicyBinary, args: &[String], timeout: u64) -> Result<u32, Failure> {
    match start(binary, args, Purpose { own: &[], only: "attend", timeout, unit: true })? {
        Outcome::Attending { pid } => Ok(pid),
        other => Err(senseless(&other)),
    }
}

fn senseless(outcome: &Outcome) -> Failure {
    Failure::new(1, format!("the policy's process did what it was not asked for: {outcome:?}"))
}

/// Its word, if that is not that it failed.
fn start(binary: &PolicyBinary, args: &[String], purpose: Purpose<'_>) -> Result<Outcome, Failure> {
    // Before anything is started: is this a policy, and one for this host?
    binary.policy()?.schema()?;

    let path = &binary.identity().path;
    let mut log = log_file(path)?;
    let (read, write) = pipe().context("cannot make a pipe")?;
    let mut child = spawn(binary, purpose, args, &log, &write)?;
    drop(write);

    let mut line = String::new();
    BufReader::new(File::from(read)).read_line(&mut line).context("cannot read the policy's report")?;
    if line.is_empty() {
        return Err(died(&mut child, path, &mut log));
    }
    match serde_json::from_str(&line).context("the policy's report makes no sense")? {
        Outcome::Failed { exit_code, message } => {
            // It is on its way out; do not leave a zombie to a caller that lives on.
            let _ = child.wait();
            Err(Failure { exit_code, message })
        }
        outcome => {
            // Nor when it ends later.
            std::thread::spawn(move || child.wait());
            Ok(outcome)
        }
    }
}

/// The log of the policy from this binary, empty.
fn log_file(binary: &Path) -> Result<File, Failure> {
    let mut name = binary.file_name().unwrap_or_default().to_os_string();
    name.push(".log");
    let name = CString::new(name.as_bytes()).context("a file's name has no zero byte")?;
    let folder = Folder::at(Path::new(LOGS));
    let opened = folder.make().and_then(|f| f.open(&name, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT));
    let file = opened.map_err(Error::from)?;
    // Not when it is opened: then it would be emptied before it is known to be ours.
    file.set_len(0).with_context(|| format!("cannot write {}", folder.file(&name).display()))?;
    Ok(file)
}

fn spawn(
    binary: &PolicyBinary,
    purpose: Purpose<'_>,
    args: &[String],
    log: &File,
    report: &OwnedFd,
) -> Result<Child, Failure> {
    let output = log.try_clone().context("cannot duplicate a descriptor")?;
    let errors = log.try_clone().context("cannot duplicate a descriptor")?;
    let fd = report.as_raw_fd();
    let path = &binary.identity().path;
    let mut command = command(binary, purpose);
    command
        .env(BINARY, path)
        .args(purpose.own)
        .args(args)
        .env(ONLY, purpose.only)
        .env(LOCK_TIMEOUT, purpose.timeout.to_string())
        .env(REPORT_FD, fd.to_string())
        .env(logger::LEVEL, log::max_level().as_str())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, setrlimit and fcntl.
    unsafe {
        command.pre_exec(move || {
            // Of its own, so that it outlives this terminal.
            libc::setsid();
            let longest = libc::rlimit { rlim_cur: LONGEST_LOG, rlim_max: LONGEST_LOG };
            libc::setrlimit(libc::RLIMIT_FSIZE, &longest);
            inherit(fd)
        });
    }
    Ok(command.spawn().with_context(|| format!("cannot start {}", path.display()))?)
}

/// The program, by itself or by way of systemd.
fn command(binary: &PolicyBinary, purpose: Purpose<'_>) -> Command {
    let path = &binary.identity().path;
    match unit::systemd_run().filter(|_| purpose.unit) {
        Some(systemd_run) => {
            let mut command = Command::new(systemd_run);
            command.args(unit::arguments(path, monotonic_ns())).arg(binary.program());
            command
        }
        None => {
            let mut command = Command::new(binary.program());
            command.arg0(path);
            command
        }
    }
}

fn inherit(fd: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; no memory is involved.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us both, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

fn died(child: &mut Child, binary: &Path, log: &mut File) -> Failure {
    let status = child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
    let said = end_of(log).unwrap_or_default();
    let code = if status.ends_with(": 2") { 2 } else { 1 };
    Failure::new(
        code,
        format!("{} ended before it took over ({status})\n{}", binary.display(), said.trim_end()),
    )
}

/// The last of what is in a log.
fn end_of(log: &mut File) -> io::Result<String> {
    let begin = log.metadata()?.len().saturating_sub(SHOWN);
    log.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    log.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

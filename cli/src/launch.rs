//! Start a policy's process, detached, and wait for its word on whether it took over.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use anyhow::Context;
use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::clock::monotonic_ns;
use scx_upgrade_sdk::exit::Exit;
use scx_upgrade_sdk::folder::Folder;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::identity::Binary;
use scx_upgrade_sdk::logger;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::report::Report;
use scx_upgrade_sdk::run::BINARY;
use scx_upgrade_sdk::run::LOCK_TIMEOUT;
use scx_upgrade_sdk::run::ONLY;
use scx_upgrade_sdk::run::Outcome;
use scx_upgrade_sdk::run::REPORT_FD;

use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
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

/// A policy's process took over.
#[derive(Debug)]
pub struct Launched {
    /// What it reports.
    pub report: Report,
    /// The signal that came meanwhile, too late to keep the process from its commit.
    pub interrupted: Option<&'static str>,
}

/// Start it; its report when it took over. It goes on in the background. A signal that comes before its commit keeps it from that,
/// and it ends.
pub fn launch(binary: &PolicyBinary, args: &[String], purpose: Purpose<'_>) -> Result<Launched, Failure> {
    match start(binary, args, purpose)? {
        (Outcome::Done(report), interrupted) => {
            let mut report = *report;
            report.warnings.extend(interrupted.map(|signal| format!("{signal} came after the commit")));
            Ok(Launched { report, interrupted })
        }
        (other, _) => Err(senseless(&other)),
    }
}

/// Start it to be the process of the policy that runs; its id.
pub fn attend(binary: &PolicyBinary, args: &[String], timeout: u64) -> Result<u32, Failure> {
    match start(binary, args, Purpose { own: &[], only: "attend", timeout, unit: true })? {
        (Outcome::Attending { pid }, _) => Ok(pid),
        (other, _) => Err(senseless(&other)),
    }
}

fn senseless(outcome: &Outcome) -> Failure {
    Failure::new(Exit::Failed, format!("the policy's process did what it was not asked for: {outcome:?}"))
}

/// Its word, if that is not that it failed, and the signal that came meanwhile.
fn start(
    binary: &PolicyBinary,
    args: &[String],
    purpose: Purpose<'_>,
) -> Result<(Outcome, Option<&'static str>), Failure> {
    // Before anything is started: is this a policy, and one for this host?
    binary.policy()?.schema()?;

    let path = &binary.identity().path;
    let before = generation();
    let mut log = log_file(path)?;
    let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
    // From before the process is there: a signal is not to find this command without one who tells the process.
    let mut interrupts = Interrupts::catch().context("cannot handle signals")?;
    let mut child = spawn(binary, purpose, args, &log, &theirs.into())?;

    let line = word(&ours, &mut interrupts).context("cannot read the policy's report")?;
    let interrupted = line.interrupted;
    if line.text.is_empty() {
        // What it left is there once it is gone.
        let _ = child.wait();
        let committed = committed(before, binary.identity());
        return Err(died(&mut child, path, &mut log, committed, interrupted));
    }
    match serde_json::from_slice(&line.text).context("the policy's report makes no sense")? {
        Outcome::Failed { exit_code, message } => {
            // It is on its way out; do not leave a zombie to a caller that lives on.
            let _ = child.wait();
            let by = interrupted.filter(|_| exit_code == Exit::Interrupted.code());
            let message = by.map_or(message.clone(), |signal| format!("{signal}: {message}"));
            Err(Failure::with_code(exit_code, message))
        }
        outcome => {
            // Nor when it ends later. Without a thread it is one until this command ends.
            let _ = thread::Builder::new().spawn(move || child.wait());
            Ok((outcome, interrupted))
        }
    }
}

/// What a policy's process said.
struct Word {
    text: Vec<u8>,
    interrupted: Option<&'static str>,
}

/// Wait for one line, or the process's end. A signal tells the process that nothing is wanted of it any more, by an end of its input;
/// what it did until then it still says.
fn word(mut socket: &UnixStream, interrupts: &mut Interrupts) -> io::Result<Word> {
    let mut word = Word { text: Vec::new(), interrupted: None };
    let mut buffer = [0; 4096];
    loop {
        let of = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled = [of(socket.as_raw_fd()), of(interrupts.fd())];
        // SAFETY: it is an array of two.
        if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            }
        }
        if polled[1].revents != 0
            && let Some(signal) = interrupts.caught()
        {
            word.interrupted = Some(signal);
            log::warn!("{signal}: the policy's process is told to stop");
            // It fails where the process has ended, which the next look shows.
            let _ = socket.shutdown(Shutdown::Write);
        }
        if polled[0].revents == 0 {
            continue;
        }
        let read = socket.read(&mut buffer)?;
        word.text.extend_from_slice(&buffer[..read]);
        if read == 0 || word.text.ends_with(b"\n") {
            return Ok(word);
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

/// It ended without a word. Whether it had taken over before is seen from what runs.
fn died(
    child: &mut Child,
    binary: &Path,
    log: &mut File,
    committed: Option<String>,
    interrupted: Option<&str>,
) -> Failure {
    let status = child.wait();
    let said = end_of(log).unwrap_or_default();
    let exit = match (&committed, interrupted, &status) {
        (Some(_), ..) => Exit::AfterCommit,
        (None, Some(_), _) => Exit::Interrupted,
        (None, None, Ok(status)) if status.code() == Some(i32::from(Exit::Usage.code())) => Exit::Usage,
        _ => Exit::Failed,
    };
    let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
    let when = match committed {
        Some(runs) => format!(
            "after its commit, {runs} runs, and the next command that changes something finishes what is left"
        ),
        None => "before it took over".to_string(),
    };
    Failure::new(exit, format!("{} ended {when} ({status})\n{}", binary.display(), said.trim_end()))
}

/// The generation that runs, if one does.
fn generation() -> Option<u32> {
    Host::running(&Pins::open().ok()?).ok().map(|host| host.data.active().generation)
}

/// What runs, if it is another generation than before and from this binary: then the process that died had committed it.
fn committed(before: Option<u32>, binary: &Binary) -> Option<String> {
    let host = Host::running(&Pins::open().ok()?).ok()?;
    let active = host.data.active();
    let slot = host.registry.slot(active.slot)?;
    let same = slot.binary.as_ref().is_some_and(|runs| runs.sha256 == binary.sha256);
    (same && before != Some(active.generation))
        .then(|| format!("generation {} of {}", active.generation, slot.title()))
}

/// The last of what is in a log.
fn end_of(log: &mut File) -> io::Result<String> {
    let begin = log.metadata()?.len().saturating_sub(SHOWN);
    log.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    log.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

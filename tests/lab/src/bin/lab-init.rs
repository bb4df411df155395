//! The guest's PID 1: sets the machine up, runs the job that the lab packed, sends the result, powers off.
//!
//! Whatever fails here goes to the console, and the machine is powered off without a result, which the lab reports.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::protocol::{self, Ended, FileEntry, Header, Manifest};

/// How long killed processes may take to go. The end of 40,000 threads takes an emulated machine a while.
const GOING: Duration = Duration::from_secs(60);
/// How long a port may take to appear.
const PROBING: Duration = Duration::from_secs(10);

/// What to mount where: type, target, and whether the machine is of no use without it.
///
/// Nothing goes over `/tmp` and `/out`: the root is a tmpfs already, and the job's files may be under `/tmp`.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("tmpfs", "/dev/shm", false),
    ("bpf", "/sys/fs/bpf", true),
    ("cgroup2", "/sys/fs/cgroup", true),
    ("tracefs", "/sys/kernel/tracing", false),
    ("debugfs", "/sys/kernel/debug", false),
];

/// Kernel settings for 40,000 threads and more.
const SETTINGS: &[(&str, &str)] =
    &[("kernel/pid_max", "4194304"), ("kernel/threads-max", "200000"), ("vm/max_map_count", "1000000")];

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "lab-init is the first process of the lab's guest and does nothing here; see `cargo xtask lab`"
        );
        std::process::exit(2);
    }
    eprintln!("{}", protocol::UP);
    if let Err(error) = run() {
        eprintln!("lab-init: {error:#}");
    }
    power_off();
}

fn run() -> Result<()> {
    for (kind, target, needed) in MOUNTS {
        if let Err(error) = mount(kind, target)
            && *needed
        {
            bail!("cannot mount {kind} on {target}: {error}");
        }
    }
    for (name, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))?;
    }
    for (name, what, limit) in [
        ("processes", libc::RLIMIT_NPROC, libc::RLIM_INFINITY),
        ("locked memory", libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY),
        ("open files", libc::RLIMIT_NOFILE, 1 << 20),
    ] {
        raise(what, limit).with_context(|| format!("cannot raise the limit of {name}"))?;
    }

    let text = fs::read(protocol::MANIFEST).with_context(|| format!("cannot read {}", protocol::MANIFEST))?;
    let job: Manifest =
        serde_json::from_slice(&text).context("the lab's job is not what this lab-init understands")?;
    let mut output = Port::open(protocol::OUTPUT_PORT)?;
    let mut ended = Vec::new();
    for command in &job.commands {
        if job.commands.len() > 1 {
            writeln!(output, "     Running {}", command.join(" ")).context("cannot write to the lab")?;
        }
        let how;
        (how, output) = run_command(command, &job.env, output)?;
        ended.push(how);
    }

    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    if job.collect {
        collect(Path::new(protocol::OUT), &mut files, &mut skipped);
    }
    let header = Header { ended, files, skipped };
    let mut result = Port::open(protocol::RESULT_PORT)?;
    protocol::write_frame(&mut result, &header, |file| File::open(Path::new(protocol::OUT).join(&file.path)))
        .context("cannot send the result")
}

/// Runs one command, its output going to the lab, and waits for it and all that it leaves behind.
fn run_command(command: &[String], env: &[(String, String)], mut output: Port) -> Result<(Ended, Port)> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("the lab's job has an empty command")
    };
    // The program gets a pipe, not the port: a write to the port keeps a CPU busy with interrupts off until the emulator
    // has taken it, which would show in what the program measures.
    let (from, to) = io::pipe().context("cannot make a pipe")?;
    let mut child = Command::new(program);
    child
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/root"), ("TMPDIR", "/tmp")])
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(to.try_clone().context("cannot share a pipe")?)
        .stderr(to)
        .process_group(0);
    let started = child.spawn();
    // Holds the other end of the pipe.
    drop(child);
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            let why = format!("cannot start {program}: {error}");
            writeln!(output, "lab-init: {why}").context("cannot write to the lab")?;
            return Ok((Ended::NotStarted(why), output));
        }
    };
    let pumped = pump(from, output);
    let id = libc::pid_t::try_from(child.id()).context("a process id is out of range")?;
    let ended = wait_for(id)?;
    end_all_others()?;
    let output = pumped.recv_timeout(GOING).context("the output of a command does not end")??;
    Ok((ended, output))
}

/// Copies what comes out of the pipe to the port until all its writers are gone, then hands the port back.
fn pump(mut from: io::PipeReader, mut to: Port) -> Receiver<io::Result<Port>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let copied = io::copy(&mut from, &mut to);
        // Nobody listens any more only when PID 1 has given up.
        let _ = send.send(copied.map(|_| to));
    });
    receive
}

/// Reaps whatever ends, as PID 1 has to, until the process `id` has.
fn wait_for(id: libc::pid_t) -> Result<Ended> {
    loop {
        match reap(0)? {
            Some((reaped, status)) if reaped == id => {
                return Ok(if libc::WIFSIGNALED(status) {
                    Ended::Signalled(libc::WTERMSIG(status))
                } else {
                    Ended::Exited(libc::WEXITSTATUS(status))
                });
            }
            Some(_) => {}
            None => bail!("the command's process {id} vanished without a status"),
        }
    }
}

/// Kills and reaps every process but this one, so that the next command finds the machine to itself.
fn end_all_others() -> Result<()> {
    let deadline = Instant::now() + GOING;
    loop {
        // SAFETY: kill takes numbers only. PID -1 means all processes but PID 1, which is us.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        loop {
            match reap(libc::WNOHANG)? {
                None => return Ok(()),
                Some((0, _)) => break,
                Some(_) => {}
            }
        }
        if Instant::now() > deadline {
            bail!("processes that a command left running do not die within {GOING:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for any child. `None` when there is none; process id 0 when none has ended and `flags` has `WNOHANG`.
fn reap(flags: libc::c_int) -> Result<Option<(libc::pid_t, libc::c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for an int for the time of the call.
        let id = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        if id >= 0 {
            return Ok(Some((id, status)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error).context("cannot wait for processes"),
        }
    }
}

/// Lists the regular files under `folder`, smaller than the frame's bound in total, with paths relative to [`protocol::OUT`].
fn collect(folder: &Path, files: &mut Vec<FileEntry>, skipped: &mut Vec<String>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return skipped.push(format!("{}: {error}", folder.display())),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(protocol::OUT).unwrap_or(&path).to_string_lossy().into_owned();
        let total: u64 = files.iter().map(|file| file.size).sum();
        match fs::symlink_metadata(&path) {
            Err(error) => skipped.push(format!("{name}: {error}")),
            Ok(about) if about.is_dir() => collect(&path, files, skipped),
            Ok(about) if !about.is_file() => skipped.push(format!("{name}: not a regular file")),
            Ok(about) if about.len() > protocol::MAX_FILES - total => {
                skipped.push(format!("{name}: {} bytes are too many", about.len()));
            }
            // A name that is no UTF-8 could not be opened by its lossy form.
            Ok(_) if path.to_str().is_none() => skipped.push(format!("{name}: its name is not UTF-8")),
            Ok(about) => files.push(FileEntry { path: name, size: about.len() }),
        }
    }
}

/// A virtio port to the lab. Writes wait in poll(2), where waiting costs no CPU.
struct Port(File);

impl Port {
    /// Opens the port of this name, which may take the kernel a moment to find.
    fn open(name: &str) -> Result<Self> {
        let deadline = Instant::now() + PROBING;
        loop {
            if let Some(device) = Self::find(name) {
                let mut options = OpenOptions::new();
                options.write(true).custom_flags(libc::O_NONBLOCK);
                return options
                    .open(&device)
                    .map(Self)
                    .with_context(|| format!("cannot open {}", device.display()));
            }
            if Instant::now() > deadline {
                bail!("there is no virtio port {name}: has the kernel CONFIG_VIRTIO_CONSOLE=y?");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn find(name: &str) -> Option<PathBuf> {
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
        let has_name = |port: &fs::DirEntry| {
            let mut text = String::new();
            let read =
                File::open(port.path().join("name")).and_then(|mut file| file.read_to_string(&mut text));
            read.is_ok() && text.trim() == name
        };
        ports.into_iter().find(has_name).map(|port| Path::new("/dev").join(port.file_name()))
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut wanted =
                        libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                    // SAFETY: `wanted` is one valid pollfd for the time of the call. What poll says shows in the next write.
                    unsafe { libc::poll(&raw mut wanted, 1, 1000) };
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn mount(kind: &str, target: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let kind = std::ffi::CString::new(kind)?;
    let target = std::ffi::CString::new(target)?;
    // SAFETY: both strings end in NUL and live through the call; these file systems take no data.
    let done = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn raise(what: libc::__rlimit_resource_t, limit: libc::rlim_t) -> io::Result<()> {
    let both = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `both` is a valid rlimit for the time of the call.
    if unsafe { libc::setrlimit(what, &raw const both) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends the machine. A PID 1 that returned would make the kernel panic.
fn power_off() -> ! {
    // SAFETY: neither takes a pointer; reboot asks the kernel to switch the machine off.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Only if the kernel refuses.
    eprintln!("lab-init: cannot power off: {}", io::Error::last_os_error());
    std::process::exit(1);
}

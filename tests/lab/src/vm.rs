//! Booting the guest, running a job in it, and telling how that went.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use thiserror::Error;

use crate::{
    cache,
    console::{self, Found, Scan},
    initramfs::Initramfs,
    kernel::Kernel,
    protocol::{self, Ended, Manifest},
    qemu::{self, Files},
    run_dir,
};

/// How often a machine is booted whose kernel does not get up, or that the emulator breaks.
pub const BOOTS: usize = 3;
/// The time within which the guest's PID 1 must have started. It takes ten seconds on two CPUs; a kernel that hangs at boot never
/// gets there.
const BOOT_WITHIN: Duration = Duration::from_secs(200);
/// What [`VmError::is_the_emulators`] says, in words.
pub const EMULATOR: &str = "the emulator tripped over the kernel's patching of its own code";
/// How many lines of the console an error shows.
const TAIL: usize = 40;
/// Folders that PID 1 mounts file systems on.
const MOUNT_POINTS: &[&str] = &["/bin", "/dev", "/out", "/proc", "/root", "/run", "/sys", "/tmp"];

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct Vm {
    /// What it boots.
    pub kernel: Kernel,
    /// This crate's `lab-init`, built for this machine: the guest's PID 1.
    pub init: PathBuf,
    /// Number of emulated CPUs.
    pub cpus: u32,
    /// How many of these CPUs are one core (SMT): 1 for none. Must divide `cpus`.
    pub threads: u32,
    /// Memory as QEMU writes it, such as `4G`. 40,000 threads take 8 GiB.
    pub memory: String,
    /// Time from start to end, boot included, after which the guest is killed.
    pub timeout: Duration,
    /// The longest time for which the job may print nothing; `None` where silence means nothing.
    pub silence: Option<Duration>,
    /// Let the guest's clock count instructions, each as two to the power of this in nanoseconds: the same run gives the same
    /// figures. Slower: one thread of the emulator runs all CPUs, in turns.
    pub icount: Option<u8>,
    /// Use the processor's virtualisation instead of software. [`Vm::new`] takes it from `SCX_UPGRADE_KVM=1`.
    pub kvm: bool,
    /// More words for the kernel's command line.
    pub append: String,
}

/// What to run in the guest. Everything runs as root with `PATH=/bin`.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The commands, one after the other, each with its arguments. What a command leaves running is killed.
    pub commands: Vec<Vec<String>>,
    /// Environment variables of the commands.
    pub env: Vec<(String, String)>,
    /// Files of this machine and where they go in the guest. Programs bring their shared libraries along. In the guest each
    /// is also found at the path that it has here, through a symbolic link.
    pub files: Vec<(PathBuf, String)>,
    /// Whether to bring back what the commands leave in `/out`.
    pub collect: bool,
}

/// How a run went that reached its end with the kernel in good health.
#[derive(Debug)]
pub struct Outcome {
    /// The first status of a command that is not 0, else 0; as a shell shows it (128 and more for signals).
    pub status: i32,
    /// How each command ended.
    pub ended: Vec<Ended>,
    /// A folder with the files that were in the guest's `/out`. It is cleared away after some more runs: copy what
    /// should stay.
    pub files: PathBuf,
    /// What was in `/out` and was not brought back, with the reason.
    pub skipped: Vec<String>,
    /// The guest kernel's console.
    pub console: PathBuf,
    /// Warnings of the kernel that are known to be no scheduler's fault: the line, and why.
    pub known_warnings: Vec<(String, &'static str)>,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

/// Why a run failed. A program that fails is no error but a status in [`Outcome`].
#[derive(Debug, Error)]
pub enum VmError {
    /// The machine could not be put together.
    #[error("cannot prepare the lab: {0:#}")]
    Prepare(anyhow::Error),
    /// QEMU could not be started.
    #[error("cannot start {program}: {error}. Run `cargo xtask setup`, which installs it", program = qemu::PROGRAM)]
    Start {
        /// What the system said.
        error: io::Error,
    },
    /// The guest took too long and was killed.
    #[error(
        "the guest did not {} within {limit:?} and was killed{}. If it was only slow, give it a longer time limit. \
         Last lines of {}:\n{tail}",
        late.words(),
        fault.as_ref().map(|found| format!("; its kernel reported a {}: {}", found.name, found.line)).unwrap_or_default(),
        console.display()
    )]
    TimedOut {
        /// What it was too late with.
        late: Late,
        /// The time limit.
        limit: Duration,
        /// What the kernel reported before that, if anything.
        fault: Option<Found>,
        /// The whole console.
        console: PathBuf,
        /// Its end.
        tail: String,
    },
    /// The guest's kernel reported a fault, whatever the programs said.
    #[error("the guest's kernel reported a {}: {}\nLast lines of {}:\n{tail}", found.name, found.line, console.display())]
    Kernel {
        /// The worst fault.
        found: Found,
        /// The whole console.
        console: PathBuf,
        /// Its end.
        tail: String,
    },
    /// QEMU itself failed.
    #[error("{program} failed ({status}): {complaint}", program = qemu::PROGRAM)]
    Qemu {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        complaint: String,
    },
    /// The guest powered off without a complete result.
    #[error(
        "the guest ended without a complete result ({error}): it was powered off or reset before the job was done, or its \
         PID 1 failed. Last lines of {}:\n{tail}",
        console.display()
    )]
    NoResult {
        /// What is wrong with the result.
        error: io::Error,
        /// The whole console.
        console: PathBuf,
        /// Its end.
        tail: String,
    },
}

impl VmError {
    /// Is it the emulator's fault, and not that of anything that ran in the guest? See [`console::is_the_emulators`].
    #[must_use]
    pub fn is_the_emulators(&self) -> bool {
        matches!(self, VmError::Kernel { console, .. }
            if console::is_the_emulators(&fs::read(console).unwrap_or_default()))
    }
}

/// What a guest can be too late with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Its PID 1 has not started.
    Boot,
    /// Nothing more was printed.
    Word,
    /// The job is not done.
    End,
}

impl Late {
    fn words(self) -> &'static str {
        match self {
            Late::Boot => "boot",
            Late::Word => "print anything more",
            Late::End => "end",
        }
    }
}

impl Vm {
    /// A machine with two CPUs, 4 GiB and a time limit of ten minutes. `init` is the path of `lab-init`.
    pub fn new(kernel: Kernel, init: impl Into<PathBuf>) -> Self {
        Self {
            kernel,
            init: init.into(),
            cpus: 2,
            threads: 1,
            memory: "4G".to_owned(),
            timeout: Duration::from_secs(600),
            silence: None,
            icount: None,
            kvm: std::env::var_os("SCX_UPGRADE_KVM").is_some_and(|value| value == "1"),
            append: String::new(),
        }
    }

    /// Boots, runs `job`, hands what it prints to `output` as it comes, and waits for the guest's end.
    ///
    /// QEMU dies with the calling thread, so nothing stays behind when the process is interrupted.
    ///
    /// # Errors
    /// See [`VmError`]. Programs that fail are not an error.
    pub fn run(&self, job: &Job, mut output: impl FnMut(&[u8])) -> Result<Outcome, VmError> {
        let folder = self.prepare(job).map_err(VmError::Prepare)?;
        let initrd = folder.join("initrd");
        let mut boot = || {
            let mut silent = true;
            let done = self.boot(&folder, |bytes| {
                silent = false;
                output(bytes);
            });
            (done, silent)
        };
        let (mut done, mut silent) = boot();
        for _ in 1..BOOTS {
            let why = match &done {
                Err(error) if error.is_the_emulators() => EMULATOR.to_owned(),
                Err(error @ VmError::TimedOut { late: Late::Boot, .. }) => error.to_string(),
                _ => break,
            };
            if self.kvm || !silent {
                break;
            }
            eprintln!("lab: {why}\nlab: booting again");
            (done, silent) = boot();
        }
        // Large, and made again in no time.
        let _ = fs::remove_file(initrd);
        done
    }

    /// Makes the run's folder with the initramfs in it.
    fn prepare(&self, job: &Job) -> Result<PathBuf> {
        let folder = run_dir::create(&cache::folder()?)?;
        let mut image = Initramfs::new();
        MOUNT_POINTS.iter().for_each(|path| image.folder(path));
        image.file(&self.init, "/init").context("the guest's PID 1 (this crate's lab-init) is needed")?;
        for (host, guest) in &job.files {
            image.file(host, guest)?;
            // Cargo compiles this path into integration tests (CARGO_BIN_EXE_…).
            let here =
                std::path::absolute(host).with_context(|| format!("cannot resolve {}", host.display()))?;
            image.link(guest, &here.to_string_lossy());
        }
        let manifest =
            Manifest { commands: job.commands.clone(), env: job.env.clone(), collect: job.collect };
        image.bytes(protocol::MANIFEST, serde_json::to_vec(&manifest)?, 0o644);
        image.write(&folder.join("initrd"))?;
        Ok(folder)
    }

    fn boot(&self, folder: &Path, mut output: impl FnMut(&[u8])) -> Result<Outcome, VmError> {
        let [initrd, console, result, complaints] =
            ["initrd", "console.log", "result.bin", "qemu.log"].map(|name| folder.join(name));
        let files = Files { initrd: &initrd, console: &console, result: &result, complaints: &complaints };
        let started = Instant::now();
        let mut child = qemu::start(self, &files).map_err(|error| VmError::Start { error })?;
        let printed = child.stdout.take().map(read_in_background);

        let is_up = || fs::read_to_string(&console).is_ok_and(|text| text.contains(protocol::UP));
        let late = printed.and_then(|printed| self.wait(&printed, started, is_up, &mut output));
        if late.is_some() {
            // Only the child that we started, by its handle. It may have ended just now, which is as good.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| VmError::Start { error })?;
        let took = started.elapsed();

        let text =
            fs::read(&console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let tail = console::tail(&text, TAIL);
        let Scan { fault, known } = console::scan(&text);
        if let Some((late, limit)) = late {
            return Err(VmError::TimedOut { late, limit, fault, console, tail });
        }
        if let Some(found) = fault {
            return Err(VmError::Kernel { found, console, tail });
        }
        if !status.success() {
            let complaint = fs::read_to_string(&complaints).unwrap_or_default().trim().to_owned();
            return Err(VmError::Qemu { status, complaint });
        }
        let collected = folder.join("out");
        let frame =
            File::open(&result).and_then(|file| protocol::read_frame(&mut BufReader::new(file), &collected));
        let _ = fs::remove_file(&result);
        let header = frame.map_err(|error| VmError::NoResult { error, console: console.clone(), tail })?;
        let status = header.ended.iter().map(Ended::status).find(|status| *status != 0).unwrap_or(0);
        Ok(Outcome {
            status,
            ended: header.ended,
            files: collected,
            skipped: header.skipped,
            console,
            known_warnings: known,
            took,
        })
    }

    /// Hands on what the guest prints until it ends, or until it is too late with something: that, and the time it had.
    fn wait(
        &self,
        printed: &Receiver<Vec<u8>>,
        started: Instant,
        is_up: impl Fn() -> bool,
        output: &mut impl FnMut(&[u8]),
    ) -> Option<(Late, Duration)> {
        let boot = BOOT_WITHIN.min(self.timeout);
        if forward(printed, started + boot, None, output) {
            return None;
        }
        if !is_up() {
            return Some((Late::Boot, boot));
        }
        let end = started + self.timeout;
        if forward(printed, end, self.silence, output) {
            return None;
        }
        Some(match self.silence {
            Some(silence) if Instant::now() < end => (Late::Word, silence),
            _ => (Late::End, self.timeout),
        })
    }
}

impl Job {
    /// A job that runs one program of this machine with these arguments, as `/bin/NAME`, and collects `/out`.
    ///
    /// # Errors
    /// When `program` names no file.
    pub fn program<A: Into<String>>(
        program: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let mut job = Self { collect: true, ..Self::default() };
        let mut command = vec![job.bring(program)?];
        command.extend(arguments.into_iter().map(Into::into));
        job.commands.push(command);
        Ok(job)
    }

    /// Brings the file `host` along as `/bin/NAME` and returns that path.
    ///
    /// # Errors
    /// When `host` does not end in a file name.
    pub fn bring(&mut self, host: impl AsRef<Path>) -> Result<String> {
        let host = host.as_ref();
        let name = host.file_name().with_context(|| format!("{} names no file", host.display()))?;
        let guest = format!("/bin/{}", name.to_string_lossy());
        if !self.files.iter().any(|(_, known)| *known == guest) {
            self.files.push((host.to_owned(), guest.clone()));
        }
        Ok(guest)
    }
}

/// Reads the pipe in a thread of its own, so that the time limit holds while nothing comes. The channel is short: a slow
/// receiver slows the guest down rather than filling our memory.
fn read_in_background(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(16);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if send.send(buffer[..count].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receive
}

/// Hands on what comes until the pipe is closed (true), or `end` has passed or nothing has come for as long as `silence` (false).
fn forward(
    printed: &Receiver<Vec<u8>>,
    end: Instant,
    silence: Option<Duration>,
    output: &mut impl FnMut(&[u8]),
) -> bool {
    loop {
        let now = Instant::now();
        let next = silence.map_or(end, |silence| end.min(now + silence));
        match printed.recv_timeout(next.saturating_duration_since(now)) {
            Ok(bytes) => output(&bytes),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_handed_on_until_it_ends() {
        let (send, receive) = mpsc::sync_channel(4);
        send.send(b"a".to_vec()).unwrap();
        send.send(b"b".to_vec()).unwrap();
        drop(send);
        let mut seen = Vec::new();
        assert!(forward(&receive, Instant::now() + Duration::from_secs(60), None, &mut |bytes| seen
            .extend_from_slice(bytes)));
        assert_eq!(seen, b"ab");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (_send, receive) = mpsc::sync_channel::<Vec<u8>>(1);
        assert!(!forward(&receive, Instant::now() + Duration::from_millis(20), None, &mut |_| ()));
    }

    #[test]
    fn silence_that_lasts_ends_it_before_the_deadline() {
        let (send, receive) = mpsc::sync_channel(4);
        send.send(b"a".to_vec()).unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        let mut seen = 0;
        assert!(!forward(&receive, far, Some(Duration::from_millis(20)), &mut |bytes| seen += bytes.len()));
        assert!(seen == 1 && Instant::now() < far);
    }

    #[test]
    fn what_it_is_late_with() {
        let mut vm = Vm::new(Kernel { version: "7.0.13".to_owned(), image: "/k".into() }, "/init");
        vm.timeout = Duration::from_millis(20);
        let (_send, receive) = mpsc::sync_channel::<Vec<u8>>(1);
        let wait = |vm: &Vm, up: bool| {
            vm.wait(&receive, Instant::now() - Duration::from_millis(1), || up, &mut |_| ())
                .map(|late| late.0)
        };
        assert_eq!(wait(&vm, false), Some(Late::Boot));
        assert_eq!(wait(&vm, true), Some(Late::End));
    }

    #[test]
    fn programs_go_to_bin_once() {
        let mut job = Job::program("/a/b/tool", ["--x"]).unwrap();
        assert_eq!(job.commands, [["/bin/tool", "--x"]]);
        job.bring("/a/b/tool").unwrap();
        assert_eq!(job.files.len(), 1);
        assert!(job.bring("/").is_err());
    }
}

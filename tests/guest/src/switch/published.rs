//! A scheduler as its project publishes it: a program that loads it, attaches it, and takes it off when it is interrupted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::tasks::sched_ext;

/// How often the kernel's state is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How long it gets to load and attach, and to end. Long, because an emulated machine is slow to verify.
const WITHIN: Duration = Duration::from_secs(300);
/// How much of what it said is shown when it fails.
const SAID: usize = 2_000;

/// Writes what published schedulers ask of the kernel's configuration to where libbpf looks for all of it (as Debian
/// installs it), unless it is there. They do not load without: even an unset optional value takes the file. The lab boots
/// an image alone, so this is for the lab, and nothing for a machine that somebody owns.
///
/// # Errors
/// The file cannot be written.
pub fn provide_config() -> Result<()> {
    let kernel = |file: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{file}"));
    let file = PathBuf::from(format!("/boot/config-{}", kernel("osrelease")?.trim()));
    if file.exists() || Path::new("/proc/config.gz").exists() {
        return Ok(());
    }
    // Preemption, of whatever kind, is what selects preemptible RCU.
    let preempts = if kernel("version")?.contains("PREEMPT") { "CONFIG_PREEMPT_RCU=y\n" } else { "" };
    std::fs::create_dir_all("/boot")?;
    std::fs::write(&file, format!("CONFIG_X86_64=y\n{preempts}"))
        .with_context(|| format!("writing {}", file.display()))
}

/// Its process. Dropped, it is killed.
#[derive(Debug)]
pub struct Published {
    process: Child,
    said: PathBuf,
}

impl Published {
    /// Start it, and wait until the kernel says `enabled`.
    ///
    /// # Errors
    /// It cannot be started, ends, or takes too long; with what it said.
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &[])
    }

    /// As [`Published::start`], with arguments.
    ///
    /// # Errors
    /// As [`Published::start`].
    pub fn start_with(program: &Path, args: &[&str]) -> Result<Self> {
        let name = program.file_name().context("a scheduler needs a name")?.to_string_lossy();
        let said = std::env::temp_dir().join(format!("{name}.log"));
        let log = File::create(&said).with_context(|| format!("creating {}", said.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut published = Self { process, said };
        let deadline = Instant::now() + WITHIN;
        while sched_ext::state()? != "enabled" {
            if let Some(status) = published.process.try_wait()? {
                bail!("{name} ended ({status}): {}", published.said());
            }
            if Instant::now() > deadline {
                bail!("{name} is not attached after {WITHIN:?}: {}", published.said());
            }
            std::thread::sleep(POLL);
        }
        Ok(published)
    }

    /// Interrupt it, as control-C does, and wait until its process has ended.
    ///
    /// # Errors
    /// It had ended before, which means that the kernel ejected it, or it takes too long; with what it said.
    pub fn interrupt(mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the scheduler had ended before ({status}): {}", self.said());
        }
        // SAFETY: kill takes no pointers; the process is a child that was not waited for, so the PID is still its own.
        let sent = unsafe { libc::kill(self.process.id().cast_signed(), libc::SIGINT) };
        if sent != 0 {
            return Err(std::io::Error::last_os_error()).context("interrupting the scheduler");
        }
        let deadline = Instant::now() + WITHIN;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the scheduler does not end: {}", self.said());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let said = std::fs::read(&self.said).unwrap_or_default();
        let end = said.get(said.len().saturating_sub(SAID)..).unwrap_or(&said);
        String::from_utf8_lossy(end).trim().to_owned()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Ended already, in the good case. The kernel takes the scheduler off when the process is gone.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

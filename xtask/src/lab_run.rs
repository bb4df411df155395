//! `cargo xtask lab`: any program inside the lab; and what the other verbs share to boot it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use lab::{
    cache,
    kernel::{self, Kernel},
    vm::{Job, Outcome, Vm, VmError},
};

use crate::build;

/// How many files that stayed in the guest are named.
const SHOWN: usize = 5;

/// Options of the machine, which several verbs have.
#[derive(Args, Clone)]
pub struct Machine {
    /// Number of emulated CPUs.
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// How many of them are one core: 1 for no SMT.
    #[arg(long, default_value_t = 1, value_name = "CPUS")]
    pub smt: u32,
    /// Memory of the guest, as QEMU writes it.
    #[arg(long, default_value = "4G", value_name = "SIZE")]
    pub memory: String,
    /// Seconds after which the guest is killed.
    #[arg(long, default_value_t = 3000, value_name = "SECONDS")]
    pub timeout: u64,
}

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// The kernel to boot: a version such as 7.3.4, the start of one such as 7.0, or the path of an image.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: Machine,
    /// Let the guest's clock count instructions: the same run gives the same figures. On one CPU, unless --icount-cpus says
    /// otherwise.
    #[arg(long)]
    icount: bool,
    /// With --icount: number of CPUs. One instruction of either advances the clock.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "icount")]
    icount_cpus: u32,
    /// Bring this file along, as /bin/NAME or where PLACE says. May be given several times.
    #[arg(long, value_name = "FILE[:PLACE]")]
    with: Vec<String>,
    /// Set an environment variable of the program. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// More words for the kernel's command line.
    #[arg(long, default_value = "", value_name = "WORDS", allow_hyphen_values = true)]
    append: String,
    /// Copy what the program leaves in /out to this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// A program of this machine (a path), or one of the workspace (a name), and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// Runs the verb. The exit status is the program's.
///
/// # Errors
/// When the lab fails. A program that fails is no error.
pub fn run(options: &Options) -> Result<ExitCode> {
    let Some((program, arguments)) = options.command.split_first() else { bail!("no program given") };
    let (init, mut job) = if program.contains('/') {
        (build::init()?, Job::program(program, arguments)?)
    } else {
        let programs = build::all()?;
        let mut job = Job::program(programs.path(program)?, arguments)?;
        for other in programs.paths() {
            job.bring(other)?;
        }
        (programs.init()?.to_owned(), job)
    };
    for with in &options.with {
        match with.split_once(':') {
            Some((host, guest)) => job.files.push((host.into(), guest.to_owned())),
            None => drop(job.bring(with)?),
        }
    }
    for variable in &options.env {
        let (name, value) =
            variable.split_once('=').with_context(|| format!("{variable:?} is not NAME=VALUE"))?;
        job.env.push((name.to_owned(), value.to_owned()));
    }
    let kernel = kernel::obtain(&cache::folder()?, options.kernel.as_deref())?;
    let mut vm = machine(kernel, &init, &options.machine);
    if options.icount {
        (vm.icount, vm.cpus) = (Some(0), options.icount_cpus);
    }
    vm.append.clone_from(&options.append);
    let outcome = boot(&vm, &job, Shown::AsItIs, |_| ())?;
    if let Some(folder) = &options.out {
        copy_folder(&outcome.files, folder)?;
    }
    Ok(ExitCode::from(u8::try_from(outcome.status).unwrap_or(1)))
}

/// A machine as the options say.
pub fn machine(kernel: Kernel, init: &Path, options: &Machine) -> Vm {
    let mut vm = Vm::new(kernel, init);
    vm.cpus = options.cpus;
    vm.threads = options.smt;
    vm.memory.clone_from(&options.memory);
    vm.timeout = Duration::from_secs(options.timeout);
    vm
}

/// How the output of a machine is shown on standard output.
pub enum Shown {
    /// As it comes.
    AsItIs,
    /// Each whole line behind the machine's name: another machine writes lines as well.
    Named(String),
}

/// Puts a name before each line, and holds back the last one until it is complete.
struct Lines {
    name: String,
    partial: Vec<u8>,
}

impl Lines {
    /// What can be shown once these bytes have come.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                shown.extend_from_slice(format!("[{}] ", self.name).as_bytes());
                shown.append(&mut self.partial);
            }
        }
        shown
    }
}

/// Boots `vm`, shows on standard output what the job prints and hands it to `seen` as well, and says how the run ended.
///
/// # Errors
/// See [`VmError`].
pub fn boot(vm: &Vm, job: &Job, shown: Shown, mut seen: impl FnMut(&[u8])) -> Result<Outcome, VmError> {
    eprintln!(
        "lab: booting kernel {}, CPUs: {}, memory: {}{}",
        vm.kernel.version,
        vm.cpus,
        vm.memory,
        if vm.kvm { ", with KVM" } else { ", in software" }
    );
    let mut lines = match shown {
        Shown::AsItIs => None,
        Shown::Named(name) => Some(Lines { name, partial: Vec::new() }),
    };
    let outcome = vm.run(job, |bytes| {
        let named = lines.as_mut().map(|lines| lines.take(bytes));
        let mut out = std::io::stdout().lock();
        // A reader that went away (as `head` does) is no reason to stop the run.
        let _ = out.write_all(named.as_deref().unwrap_or(bytes)).and_then(|()| out.flush());
        seen(bytes);
    })?;
    for skipped in outcome.skipped.iter().take(SHOWN) {
        eprintln!("lab: not brought back from /out: {skipped}");
    }
    if outcome.skipped.len() > SHOWN {
        eprintln!("lab: nor were {} others", outcome.skipped.len() - SHOWN);
    }
    for (line, why) in &outcome.known_warnings {
        eprintln!("lab: known kernel warning, no fault of a scheduler: {line}\nlab: {why}");
    }
    eprintln!(
        "lab: ended with status {} after {:.1} s; console: {}",
        outcome.status,
        outcome.took.as_secs_f64(),
        outcome.console.display()
    );
    Ok(outcome)
}

/// Copies the files of a folder, with those in its folders.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies one file.
///
/// # Errors
/// When it cannot be read or the target cannot be written.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_shown_behind_the_name() {
        let mut lines = Lines { name: "7.0".to_owned(), partial: Vec::new() };
        let mut shown = Vec::new();
        for piece in ["test a ... ", "ok\nte", "st b ... ok\n", "\n"] {
            shown.extend(lines.take(piece.as_bytes()));
        }
        assert_eq!(String::from_utf8(shown).unwrap(), "[7.0] test a ... ok\n[7.0] test b ... ok\n[7.0] \n");
    }
}

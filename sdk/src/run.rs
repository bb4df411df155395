//! The user-space half of a policy: takes over, then lives on for statistics until it is superseded.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use state_migrate::Scope;

use crate::attend;
use crate::direct::Direct;
use crate::ejection;
use crate::environment;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::exit::Exit;
use crate::host::Host;
use crate::kernel;
use crate::launcher;
use crate::load::Loaded;
use crate::load::Places;
use crate::logger;
use crate::logger::print_line;
use crate::pins::Pins;
use crate::policy::Policy;
use crate::report::Report;
use crate::rescue;
use crate::scopes::SCOPES;
use crate::take_over;
use crate::take_over::Only;
use crate::take_over::Wish;
use crate::typed::State;
use crate::typed::Statistics;
use crate::typed::Value;
use crate::variables;
use crate::variables::Variables;

/// Environment variable by which `scx-upgrade` tells a policy's process the descriptor to report on: one line of
/// JSON, an [`Outcome`], when it took over or could not.
pub const REPORT_FD: &str = "SCX_UPGRADE_REPORT_FD";

/// Environment variables by which `scx-upgrade` passes on how long to wait for another command, and what it was asked for.
/// Not by options: they are no arguments of the policy's, and one that was built before they came is to start all the same.
pub const LOCK_TIMEOUT: &str = "SCX_UPGRADE_LOCK_TIMEOUT";
/// See [`LOCK_TIMEOUT`]; a value of [`Only`].
pub const ONLY: &str = "SCX_UPGRADE_ONLY";

/// Options of every policy's binary that say how it takes over, as `scx-upgrade` gives them: see [`RunArgs`].
pub const ALLOW_REATTACH: &str = "--allow-reattach";
/// See [`ALLOW_REATTACH`].
pub const LEAN: &str = "--lean";
/// See [`ALLOW_REATTACH`].
pub const NO_CARRY: &str = "--no-carry";
/// See [`ALLOW_REATTACH`].
pub const REPLACE: &str = "--replace";
/// See [`ALLOW_REATTACH`].
pub const RESTORE: &str = "--restore";

/// Environment variable by which `scx-upgrade` tells a policy's process where its binary is: it was started from an open
/// file, or from a sealed copy of it, which has no path.
pub const BINARY: &str = "SCX_UPGRADE_BINARY";

/// Options that every policy's binary has. Flatten them into its own.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Attach directly, without the host: nothing is carried, and Ctrl-C ends the scheduler
    #[arg(long)]
    pub direct: bool,

    /// Where it cannot be swapped in in place, detach what runs and attach the host again, with its state
    #[arg(long)]
    pub allow_reattach: bool,

    /// Where this starts the host, begin with the state that a snapshot has
    #[arg(long, value_name = "FILE", conflicts_with = "direct")]
    pub restore: Option<PathBuf>,

    /// Where a scheduler runs that scx-upgrade did not start, take that off, once this one is ready
    #[arg(long, conflicts_with = "direct")]
    pub replace: bool,

    /// Where this starts the host, let it do without what this policy does not use of what costs at each context switch
    #[arg(long, conflicts_with = "direct")]
    pub lean: bool,

    /// Carry nothing over from what runs: the state of this policy starts anew
    #[arg(long, conflicts_with = "restore")]
    pub no_carry: bool,

    /// Seconds to wait for another command that is changing the scheduler
    #[arg(long, default_value_t = 10, value_name = "SECONDS", env = LOCK_TIMEOUT, hide_env = true)]
    pub lock_timeout: u64,

    /// Do it only if it comes to this
    #[arg(long, hide = true, env = ONLY)]
    pub only: Option<Only>,

    /// Seconds between lines of statistics; 0 for none
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub stats: u64,
}

impl RunArgs {
    /// The pins, waited for as long as it says, where this machine can have any.
    fn pins(&self) -> Result<Pins> {
        kernel::check()?;
        environment::check_namespaces()?;
        Ok(Pins::open()?.patient(Duration::from_secs(self.lock_timeout)))
    }
}

/// The arguments of a policy's process (without the program's name), without the options of the SDK, which say how it takes over.
/// They are recognised by their definition in [`RunArgs`], in each form that clap takes. `--stats` stays if `keep_stats`: it does
/// not change how the policy schedules, but a process that takes the place of another is to print as that did.
pub fn policy_args(args: &[String], keep_stats: bool) -> Vec<String> {
    let options = <RunArgs as clap::Args>::augment_args(clap::Command::new("policy"));
    let find = |name: &str| options.get_arguments().find(|option| option.get_long() == Some(name));
    let (mut own, mut rest) = (Vec::new(), args.iter());
    while let Some(arg) = rest.next() {
        if arg == "--" {
            own.push(arg.clone());
            own.extend(rest.cloned());
            break;
        }
        let text = arg.strip_prefix("--").unwrap_or_default();
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some(option) = find(name).filter(|_| !name.is_empty()) else {
            own.push(arg.clone());
            continue;
        };
        let follows = option.get_action().takes_values() && value.is_none();
        let next = if follows { rest.next() } else { None };
        if keep_stats && name == "stats" {
            own.push(arg.clone());
            own.extend(next.cloned());
        }
    }
    own
}

/// What a policy's process tells who started it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took over.
    Done(Box<Report>),
    /// It is the process of the policy that runs: see [`crate::attend`].
    Attending {
        /// Its id.
        pid: u32,
    },
    /// It failed. `exit_code` says what runs.
    Failed {
        /// That of an [`Exit`].
        exit_code: u8,
        /// The error in words.
        message: String,
    },
}

impl Outcome {
    /// It failed with this.
    pub(crate) fn failed(error: &Error) -> Outcome {
        Outcome::Failed { exit_code: error.exit_code(), message: in_full(error) }
    }

    fn of(done: std::result::Result<Outcome, &Error>) -> Outcome {
        done.unwrap_or_else(Outcome::failed)
    }
}

/// A policy that runs, seen from its user-space half.
#[derive(Debug)]
pub struct Running {
    /// Those of its globals and of its records, by name; the kernel's names are cut off.
    pub(crate) maps: Vec<(String, MapHandle)>,
    pub(crate) variables: Variables,
    pub(crate) places: Places,
}

impl Running {
    fn of(loaded: &Loaded) -> Running {
        let maps = loaded.object.maps().filter_map(|map| {
            Some((map.name().to_string_lossy().into_owned(), MapHandle::try_from(&map).ok()?))
        });
        Running { maps: maps.collect(), variables: loaded.variables.clone(), places: loaded.places.clone() }
    }

    /// The value of a global variable of the BPF half.
    ///
    /// # Errors
    /// [`Error::NoValue`] if it has none of that name and size.
    pub fn read<T: Value>(&self, name: &str) -> Result<T> {
        let bytes = self.global(name).ok_or_else(|| no_value(name))?;
        T::from_bytes(&bytes).ok_or_else(|| no_value(name))
    }

    /// What the BPF half has counted.
    ///
    /// # Errors
    /// [`Error::NoValue`] if it has other globals than `S` says.
    pub fn stats<S: Statistics>(&self) -> Result<S> {
        S::read(&mut |name| self.global(name)).ok_or_else(|| no_value("statistics"))
    }

    /// The state of a task, by its thread id.
    ///
    /// # Errors
    /// There is no such task, no record of it yet, or `S` is not the policy's.
    pub fn task<S: State>(&self, tid: i32) -> Result<S> {
        // A pidfd of any thread, not of leaders only, since Linux 6.9; every kernel with sched_ext is younger.
        const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
        // SAFETY: the call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).trying(format!("cannot open the task {tid}"));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        self.state(Scope::Task, &pidfd.as_raw_fd().to_ne_bytes(), &format!("task {tid}"))
    }

    /// The state of a cgroup, by its folder.
    ///
    /// # Errors
    /// There is no such cgroup, no record of it yet, or `S` is not the policy's.
    pub fn cgroup<S: State>(&self, folder: &Path) -> Result<S> {
        let open = File::open(folder).trying(format!("cannot open {}", folder.display()))?;
        self.state(Scope::Cgroup, &open.as_raw_fd().to_ne_bytes(), &format!("cgroup {}", folder.display()))
    }

    /// The state of a CPU.
    ///
    /// # Errors
    /// There is no such CPU, or `S` is not the policy's.
    pub fn cpu<S: State>(&self, cpu: u32) -> Result<S> {
        self.state(Scope::Cpu, &cpu.to_ne_bytes(), &format!("CPU {cpu}"))
    }

    /// The policy's one global record.
    ///
    /// # Errors
    /// `S` is not the policy's.
    pub fn global_state<S: State>(&self) -> Result<S> {
        self.state(Scope::Global, &0u32.to_ne_bytes(), "the global record")
    }

    fn state<S: State>(&self, scope: Scope, key: &[u8], what: &str) -> Result<S> {
        let missing = || no_value(what);
        if S::SCOPE != scope {
            return Err(missing());
        }
        let map = SCOPES.iter().find(|s| s.scope == scope).map(|s| s.map).ok_or_else(missing)?;
        let record = self.look_up(|name| name == map, key).ok_or_else(missing)?;
        let places = self.places.get(&scope).ok_or_else(missing)?;
        S::read(&mut |name| {
            let range = places.get(name)?;
            Some(record.get(range.clone())?.to_vec())
        })
        .ok_or_else(missing)
    }

    fn global(&self, name: &str) -> Option<Vec<u8>> {
        let place = self.variables.get(name)?;
        let value = self.look_up(|map| variables::is_section(map, &place.section), &0u32.to_ne_bytes())?;
        Some(value.get(place.offset..place.offset + place.size)?.to_vec())
    }

    fn look_up(&self, is_it: impl Fn(&str) -> bool, key: &[u8]) -> Option<Vec<u8>> {
        let (_, map) = self.maps.iter().find(|(name, _)| is_it(name))?;
        map.lookup(key, MapFlags::ANY).ok()?
    }
}

fn no_value(what: &str) -> Error {
    Error::NoValue { what: what.to_string() }
}

impl Policy {
    /// Take over, or start the host, and stay until superseded or interrupted. `statistics` is called every
    /// `--stats` seconds.
    ///
    /// The exit code is that of an [`Exit`]: 0 where the policy was superseded, stopped or interrupted, 5 where the kernel ejected
    /// it. A panic in `statistics` ends the statistics, not the process: output that cannot be written makes `println!` panic.
    pub fn run(&self, args: &RunArgs, statistics: impl FnMut(&Running)) -> ExitCode {
        logger::start_as_told();
        if args.direct && std::env::var_os(REPORT_FD).is_some() {
            return refuse_direct();
        }
        let result =
            if args.direct { self.run_direct(args, statistics) } else { self.run_hosted(args, statistics) };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                logger::print_error(format_args!("error: {e}"));
                if let Some(log) = e.log() {
                    logger::print_error(format_args!("{log}"));
                }
                ExitCode::from(e.exit_code())
            }
        }
    }

    fn run_hosted(&self, args: &RunArgs, statistics: impl FnMut(&Running)) -> Result<()> {
        take_name();
        let policy = self.clone().of_this_process();
        if args.only == Some(Only::Attend) {
            return Self::run_attending(&policy, args, statistics);
        }
        let wish = Wish {
            may_reattach: args.allow_reattach,
            restore: args.restore.as_deref(),
            replace: args.replace,
            lean: args.lean,
            no_carry: args.no_carry,
            only: args.only,
        };
        let (binary, only) = (policy.binary().cloned(), args.only);
        launcher::connect(move || take_over::note_failure(only, binary.as_ref(), &Error::Interrupted));
        let mut taken = args.pins().and_then(|pins| take_over::take_over(&pins, &policy, wish));
        let outcome = taken.as_ref().map(|(_, _, report)| Outcome::Done(Box::new(report.clone())));
        launcher::report(&Outcome::of(outcome));
        if let Ok((host, ..)) = &mut taken {
            host.urgent = None;
        }
        let (host, loaded, report) = taken?;
        print_line(format_args!("{}: generation {} is running", report.to, report.generation));
        report.warnings.iter().for_each(|warning| print_line(format_args!("warning: {warning}")));
        // Nobody waits for this any more: a walk over all tasks.
        match rescue::rescue(&host) {
            Ok(0) => {}
            Ok(n) => print_line(format_args!("re-enqueued {n} tasks that the policy before had on no queue")),
            Err(e) => print_line(format_args!("warning: {e}")),
        }
        let mine = host.registry.slot(report.slot).map(|s| s.load);
        let superseded = || Self::superseded(&host, mine);
        Self::stand_by(args, &Running::of(&loaded), statistics, superseded, &catch_interruptions())
    }

    /// In the place of a process that has ended.
    fn run_attending(policy: &Policy, args: &RunArgs, statistics: impl FnMut(&Running)) -> Result<()> {
        launcher::connect(|| {});
        let attended = args.pins().and_then(|pins| attend::attend(&pins, policy));
        let outcome = attended.as_ref().map(|_| Outcome::Attending { pid: std::process::id() });
        launcher::report(&Outcome::of(outcome));
        let (host, running) = attended?;
        print_line("in the place of a process that ended: the policy ran on without it");
        let mine = host.registry.slot(host.data.active().slot).map(|s| s.load);
        let ended = || Self::superseded(&host, mine);
        Self::stand_by(args, &running, statistics, ended, &catch_interruptions())
    }

    /// Say what runs instead, once it does.
    fn superseded(host: &Host, mine: Option<u64>) -> Option<Ended> {
        if let Some(exit) = host.data.exit() {
            let reason = host.data.exit_reason().unwrap_or_default();
            // By `stop`, or on the way to another host.
            return Some(match ejection::Kind::of(&exit) {
                ejection::Kind::Detached => Ended::Superseded(format!("the host was detached: {reason}")),
                _ => Ended::Ejected(reason),
            });
        }
        let now = match Host::running(&host.pins) {
            Ok(now) => now,
            Err(Error::Ejected { reason }) => return Some(Ended::Ejected(reason)),
            Err(e) => return Some(Ended::Superseded(e.to_string())),
        };
        let active = now.data.active();
        let info = now.registry.slot(active.slot)?;
        // It may be taken back, and this process is wanted again then.
        (Some(info.load) != mine && !host.pins.in_probation()).then(|| {
            let by = format!("{} {} in generation {}", info.policy, info.version, active.generation);
            Ended::Superseded(format!("superseded by {by}"))
        })
    }

    fn run_direct(&self, args: &RunArgs, statistics: impl FnMut(&Running)) -> Result<()> {
        kernel::check()?;
        let mut direct = Direct::load(self)?;
        // From before it is attached: an interruption is to detach it.
        let interrupted = catch_interruptions();
        direct.attach()?;
        print_line(format_args!("{}: attached directly", direct.loaded().ops.name));
        for warning in &direct.loaded().warnings {
            print_line(format_args!("warning: {warning}"));
        }
        // Why it ended is looked at once it is detached.
        let ended = || direct.exit_reason().map(Ended::Superseded);
        Self::stand_by(args, &Running::of(direct.loaded()), statistics, ended, &interrupted)?;
        direct.detach()?;
        match direct.exit_reason() {
            // SCX_EXIT_UNREG and friends have no message; an error has.
            Some(reason) if reason.contains(':') => Err(Error::Ejected { reason }),
            _ => Ok(()),
        }
    }

    fn stand_by(
        args: &RunArgs,
        running: &Running,
        mut statistics: impl FnMut(&Running),
        ended: impl Fn() -> Option<Ended>,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let tick = Duration::from_millis(100);
        let mut prints = args.stats > 0;
        for ticks in 1u64.. {
            std::thread::sleep(tick);
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
            if ticks % 10 == 0
                && let Some(why) = ended()
            {
                match why {
                    Ended::Superseded(why) => print_line(why),
                    Ended::Ejected(reason) => return Err(Error::Ejected { reason }),
                }
                break;
            }
            if prints && ticks % args.stats.saturating_mul(10) == 0 {
                // `println!` panics where standard output cannot be written.
                prints = catch_unwind(AssertUnwindSafe(|| statistics(running))).is_ok();
                if !prints {
                    log::warn!("no more statistics: printing them panicked");
                }
            }
        }
        Ok(())
    }
}

/// Becomes true when Ctrl-C or SIGTERM comes.
fn catch_interruptions() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    if let Err(e) = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)) {
        log::warn!("cannot handle Ctrl-C: {e}");
    }
    interrupted
}

/// How a policy's time ended.
enum Ended {
    /// As it was meant to: what runs instead, in words.
    Superseded(String),
    /// The kernel ejected the host, for this reason.
    Ejected(String),
}

/// `scx-upgrade` waits for a report on the host, and there is none without the host.
fn refuse_direct() -> ExitCode {
    let message = "--direct attaches the policy without scx-upgrade's host: start the binary by itself, without scx-upgrade";
    launcher::connect(|| {});
    launcher::report(&Outcome::Failed { exit_code: Exit::Usage.code(), message: message.to_string() });
    logger::print_error(format_args!("error: {message}"));
    ExitCode::from(Exit::Usage.code())
}

/// The arguments of this process, with its binary's path before them: it may have been started from a descriptor.
pub(crate) fn arguments() -> Vec<String> {
    let told = std::env::var_os(BINARY).map(|path| path.to_string_lossy().into_owned());
    let mut args: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let (Some(first), Some(path)) = (args.first_mut(), told) {
        *first = path;
    }
    args
}

/// Go by the binary's name in `ps` and `top`: a program that is started from a descriptor is called by its number.
fn take_name() {
    let path = std::env::var_os(BINARY).map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name).and_then(|n| CString::new(n.as_bytes()).ok());
    if let Some(name) = name {
        // SAFETY: the name is NUL-terminated; the kernel takes the first 15 bytes of it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// The message, with the log of libbpf and the verifier if `-v` asks for it.
fn in_full(error: &Error) -> String {
    match error.log().filter(|_| log::max_level() >= log::LevelFilter::Info) {
        Some(log) => format!("{error}\n{log}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, keep_stats: bool) -> String {
        let args: Vec<_> = line.split(' ').map(str::to_string).collect();
        policy_args(&args, keep_stats).join(" ")
    }

    #[test]
    fn options_of_the_sdk_are_no_arguments_of_the_policy() {
        let own = "--slice-us 100";
        for how in [
            "--restore f",
            "--restore=f",
            "--no-carry --allow-reattach --replace --lean",
            "--direct",
            "--lock-timeout 5",
            "--lock-timeout=5",
            "--only swap",
            "--only=swap",
            "--stats 1",
            "--stats=1",
        ] {
            assert_eq!(of(&format!("{how} {own}"), false), own);
            assert_eq!(of(&format!("{own} {how}"), false), own);
        }
        assert_eq!(
            of("--stats 2 --restore f --slice-us=1 --stats=3", true),
            "--stats 2 --slice-us=1 --stats=3"
        );
        // What only looks like one.
        let kept = "--restored --leaner=1 -x --direction up --";
        assert_eq!(of(kept, false), kept);
        assert_eq!(of("a --lean -- --lean --restore", false), "a -- --lean --restore");
    }
}

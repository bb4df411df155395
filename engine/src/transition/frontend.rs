//! The frontend: a policy's own program, which reads maps and prints statistics. The policy needs none: its BPF half is the
//! kernel's. Where a frontend has ended, another one of the same binary can take its place.
//!
//! It is started before the commit, and waits at a pipe for its setup. So the earlier policy still schedules its start, the program
//! that was verified is still open, and it never has the real-time class that the command has from the commit on. Where no commit
//! comes, the pipe is closed and it ends.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::io;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::io::Write;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use libbpf_rs::MapCore;
use libbpf_rs::MapHandle;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use scx_upgrade_protocol::FRONTEND;
use scx_upgrade_protocol::Frontend;
use scx_upgrade_protocol::Memory;
use scx_upgrade_protocol::Place;
use scx_upgrade_protocol::Records;
use state_migrate::Layout;

use crate::candidate::direct::Direct;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::abi::ExitRecord;
use crate::host::abi::HostData;
use crate::host::loaded;
use crate::host::pins::Pins;
use crate::host::requirements;
use crate::host::scopes::SCOPES;
use crate::kernel::variables;
use crate::kernel::variables::Variables;
use crate::observe::counters;
use crate::os::clock::monotonic_ns;
use crate::os::identity;
use crate::os::identity::pid_in_proc;
use crate::os::logger::print_line;
use crate::os::private_dir::PrivateDir;
use crate::transition::unit;

/// Where the output of frontends goes. In memory, and gone with the boot, as they are.
const LOGS: &str = "/run/scx-upgrade";
/// Maximum size of a log in bytes. A frontend that prints without end must not fill memory: the kernel ends it, and the policy
/// runs on.
const MAX_LOG: u64 = 64 * 1024 * 1024;
/// The largest setup in bytes, and what the pipe has room for: `/proc/sys/fs/pipe-max-size` is as large everywhere.
const MAX_SETUP: usize = 1 << 20;
/// How long systemd-run may take from its start until it executes the program.
const STARTS: Duration = Duration::from_secs(5);
/// `SCX_EXIT_UNREG` of `enum scx_exit_kind` (Linux v7.3 kernel/sched/ext/internal.h): somebody detached the scheduler. It only
/// decides what a frontend says at its end.
const EXIT_UNREG: u64 = 64;

/// How a frontend is started.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// What is executed.
    pub program: &'a Path,
    /// The policy's binary, as `ps` is to show it.
    pub path: &'a Path,
    /// The policy's arguments.
    pub args: &'a [String],
    /// Start it as a systemd unit of its own, where systemd runs.
    pub unit: bool,
}

/// Starts another frontend for the policy that runs, where it has none. `policy` must be from the same binary. Returns its pid.
///
/// # Errors
/// [`Error::NoFrontend`], or nothing runs.
pub fn restart(pins: &Pins, policy: &Policy, launch: Launch<'_>) -> Result<u32> {
    let _lock = pins.lock()?;
    let mut host = Host::running(pins)?;
    let refused = |why: String| Error::NoFrontend { why };
    if host.registry.pending.is_some() {
        return Err(refused(
            "a command was cut off, and the next one is to finish or undo it first".to_string(),
        ));
    }
    let info = host.active_policy().ok_or_else(|| refused("no policy runs".to_string()))?;
    let same =
        info.binary.as_ref().zip(policy.binary()).is_some_and(|(runs, this)| runs.sha256 == this.sha256);
    if !same {
        return Err(refused(format!("{}, which runs, is not from this binary", info.title())));
    }
    if identity::is_alive(info.pid) {
        return Err(refused(format!("process {} is its frontend already", info.pid)));
    }
    let waiting = Waiting::spawn(launch)?;
    waiting.begin(&host, policy)?;
    let slot = usize::from(host.data.active().slot);
    if let Some(info) = host.registry.slots[slot].as_mut() {
        info.pid = waiting.pid();
    }
    host.save()?;
    Ok(waiting.pid())
}

/// What the frontend of the policy that runs needs to know.
fn setup(host: &Host, policy: &Policy) -> Result<Frontend> {
    let slot = host.data.active().slot;
    let info = host.active_policy();
    let of_programs: BTreeSet<u32> = host.program_ids(slot).flat_map(counters::maps_of).collect();
    let shared = host.shared().into_iter().map(|(name, map)| (name.to_string(), id_of(map)));
    let mut maps: Vec<(String, u32)> = of_programs.into_iter().filter_map(with_name).collect();
    // Their names are longer than those that the kernel keeps.
    maps.extend(shared);
    Ok(Frontend {
        path: path_of(policy),
        load: info.map_or(0, |info| info.load),
        variables: places(&policy.inspect()?.variables, &maps),
        scopes: scopes(&host.registry.layout, slot, &maps),
        memory: memory(id_of(host.memory())),
        probation: Some(host.pins.probation().to_string_lossy().into_owned()),
        link: None,
        inherited: Vec::new(),
    })
}

/// What the frontend of a policy that is attached directly needs to know. `link` keeps it attached.
fn setup_direct(policy: &Policy, direct: &Direct, link: BorrowedFd<'_>) -> Frontend {
    let loaded = direct.loaded();
    let maps: Vec<_> =
        loaded.object.maps().map(|map| (map.name().to_string_lossy().into_owned(), id_of(&map))).collect();
    let memory_map =
        maps.iter().find(|(name, _)| name == crate::host::names::HOST_MAP).map_or(0, |(_, id)| *id);
    Frontend {
        path: path_of(policy),
        load: 0,
        variables: places(&loaded.variables, &maps),
        scopes: columns(&loaded.places, &maps),
        memory: memory(memory_map),
        probation: None,
        link: Some(link.as_raw_fd()),
        inherited: loaded.object.maps().map(|map| map.as_fd().as_raw_fd()).collect(),
    }
}

fn path_of(policy: &Policy) -> String {
    policy.binary().map_or_else(String::new, |binary| binary.path.to_string_lossy().into_owned())
}

fn id_of(map: &impl MapCore) -> u32 {
    map.info().map_or(0, |map| map.info.id)
}

fn with_name(id: u32) -> Option<(String, u32)> {
    let map = MapHandle::from_map_id(id).ok()?;
    Some((map.name().to_string_lossy().into_owned(), id))
}

fn places(variables: &Variables, maps: &[(String, u32)]) -> BTreeMap<String, Place> {
    let of = |(name, variable): (&str, &variables::Variable)| {
        let (_, map) = maps.iter().find(|(map, _)| variables::is_section(map, &variable.section))?;
        Some((name.to_string(), Place { map: *map, offset: variable.offset, size: variable.size }))
    };
    variables.with_prefix("").filter_map(of).collect()
}

fn scopes(layout: &Layout, slot: u8, maps: &[(String, u32)]) -> BTreeMap<String, Records> {
    columns(&loaded::places(layout, slot), maps)
}

fn columns(places: &loaded::Places, maps: &[(String, u32)]) -> BTreeMap<String, Records> {
    let of = |scope: &crate::host::scopes::ScopeParts| {
        let (_, map) = maps.iter().find(|(name, _)| name == scope.map)?;
        let columns = places.get(&scope.scope)?;
        let columns = columns.iter().map(|(name, range)| (name.clone(), (range.start, range.len())));
        Some((scope.scope.to_string(), Records { map: *map, columns: columns.collect() }))
    };
    SCOPES.iter().filter_map(of).collect()
}

fn memory(map: u32) -> Memory {
    let exit = offset_of!(HostData, exit);
    Memory {
        map,
        size: size_of::<HostData>(),
        active: offset_of!(HostData, active),
        loads: offset_of!(HostData, callers),
        exit_kind: exit + offset_of!(ExitRecord, kind),
        detached: vec![EXIT_UNREG],
        exit_reason: exit + offset_of!(ExitRecord, reason),
        exit_msg: exit + offset_of!(ExitRecord, msg),
    }
}

/// A process that waits to become the frontend of the policy that is about to run. Dropped without `begin()`, it ends.
#[derive(Debug)]
pub struct Waiting {
    pid: u32,
    /// The process itself, whatever becomes of its number.
    child: Option<OwnedFd>,
    /// Where its setup goes.
    setup: Mutex<Option<PipeWriter>>,
    /// The program of a process of its own; none: this process becomes it.
    program: Option<(u64, u64)>,
    /// The other end, where this process becomes it.
    own: Option<PipeReader>,
}

impl Waiting {
    /// Starts a process of its own.
    ///
    /// # Errors
    /// It cannot be started, or its log cannot be opened.
    pub fn spawn(launch: Launch<'_>) -> Result<Waiting> {
        let (read, write) = pipe()?;
        let fd = read.as_raw_fd();
        let log = log_file(launch.path)?;
        let errors = log.try_clone().trying("cannot duplicate a descriptor")?;
        let of_program = fs::metadata(launch.program).trying("cannot look at the policy's program")?;
        let mut command = command(launch);
        command.arg(FRONTEND).arg(fd.to_string()).args(launch.args);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, setrlimit and fcntl.
        unsafe {
            command.pre_exec(move || {
                // Of its own, so that it outlives this terminal.
                libc::setsid();
                let longest = libc::rlimit { rlim_cur: MAX_LOG, rlim_max: MAX_LOG };
                libc::setrlimit(libc::RLIMIT_FSIZE, &longest);
                inherit(fd)
            });
        }
        let mut child = command.spawn().trying(format!("cannot start {}", launch.path.display()))?;
        let opened = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        let pid = opened.as_ref().and_then(pid_in_fdinfo).unwrap_or_else(|| child.id());
        // Do not leave a zombie to a caller that lives on.
        let _ = thread::Builder::new().spawn(move || child.wait());
        let program = Some((of_program.dev(), of_program.ino()));
        Ok(Waiting { pid, child: opened, setup: Mutex::new(Some(write)), program, own: None })
    }

    /// This process is to become it: see [`Waiting::become_frontend`].
    ///
    /// # Errors
    /// A pipe cannot be made.
    pub fn of_this_process() -> Result<Waiting> {
        let (read, write) = pipe()?;
        let setup = Mutex::new(Some(write));
        Ok(Waiting { pid: pid_in_proc(), child: None, setup, program: None, own: Some(read) })
    }

    /// The process, as /proc has it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it of the policy that runs. Under the lock of the command that committed it: so it is of that policy.
    pub(crate) fn begin(&self, host: &Host, policy: &Policy) -> Result<()> {
        let json = json(&setup(host, policy)?)?;
        let write = self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut write) = write else { return Ok(()) };
        // Before its end of this process's descriptors may be closed: systemd-run becomes the program a moment after it is started.
        self.wait_until_it_runs()?;
        write.write_all(&json).trying("cannot tell the frontend of the policy")
    }

    fn wait_until_it_runs(&self) -> Result<()> {
        let Some(program) = self.program else { return Ok(()) };
        let deadline = Instant::now() + STARTS;
        let runs = || fs::metadata(format!("/proc/{}/exe", self.pid)).map(|exe| (exe.dev(), exe.ino()));
        while runs().is_ok_and(|exe| exe != program) {
            if Instant::now() > deadline {
                let why = format!("systemd-run did not start it within {} seconds", STARTS.as_secs());
                return Err(Error::NoFrontend { why });
            }
            thread::sleep(Duration::from_millis(1));
        }
        // `status` and `recover --watch` find a frontend that ended at once by its pid.
        Ok(())
    }

    /// This process executes the policy's binary, in the foreground.
    ///
    /// # Errors
    /// It cannot be executed; the policy runs on without a frontend.
    pub fn become_frontend(self, launch: Launch<'_>) -> Error {
        match &self.own {
            Some(read) => execute(launch, read.as_raw_fd()),
            None => Error::NoFrontend { why: "another process is it".to_string() },
        }
    }
}

impl Drop for Waiting {
    /// Where no commit came, the process ends. It may be systemd-run still, and the program that this would execute is closed in a
    /// moment.
    fn drop(&mut self) {
        let waits = self.setup.get_mut().unwrap_or_else(PoisonError::into_inner).is_some();
        if let Some(child) = self.child.as_ref().filter(|_| waits) {
            // One that has ended already is no error.
            let _ = rustix::process::pidfd_send_signal(child, rustix::process::Signal::KILL);
        }
    }
}

fn execute(launch: Launch<'_>, setup: i32) -> Error {
    if let Err(source) = inherit(setup) {
        return Error::Io { what: "cannot hand over the frontend's setup".to_string(), source };
    }
    let mut command = Command::new(launch.program);
    let source = command.arg0(launch.path).arg(FRONTEND).arg(setup.to_string()).args(launch.args).exec();
    Error::Io { what: format!("cannot start {}", launch.path.display()), source }
}

/// A pipe that has room for a whole setup, so that the command does not wait for the frontend to read it.
fn pipe() -> Result<(PipeReader, PipeWriter)> {
    let (read, write) = io::pipe().trying("cannot make a pipe")?;
    rustix::pipe::fcntl_setpipe_size(&write, MAX_SETUP)
        .map_err(io::Error::from)
        .trying("cannot size a pipe")?;
    Ok((read, write))
}

fn json(setup: &Frontend) -> Result<Vec<u8>> {
    let json =
        serde_json::to_vec(setup).map_err(io::Error::other).trying("cannot write the frontend's setup")?;
    match json.len() <= MAX_SETUP {
        true => Ok(json),
        false => Err(Error::NoFrontend { why: format!("its setup has {} bytes", json.len()) }),
    }
}

/// A process's id as /proc has it, which in a PID namespace may be another than the kernel gives to this process.
fn pid_in_fdinfo(process: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// Attaches a policy by itself, without the host, and becomes its frontend, which keeps it attached until it ends.
///
/// # Errors
/// The policy cannot be loaded or attached. The value is why the frontend cannot be executed; the policy is detached then.
pub fn run_direct(policy: &Policy, launch: Launch<'_>) -> Result<Error> {
    requirements::check()?;
    let mut direct = Direct::load(policy)?;
    // An interruption is to detach it, which the frontend does, and handlers do not outlive the exec: what comes from here on
    // waits until the frontend has its own.
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
        .thread_block()
        .map_err(io::Error::from)
        .trying("cannot hold signals back")?;
    direct.attach()?;
    print_line(format_args!("{}: attached directly", direct.loaded().ops.name));
    for warning in &direct.loaded().warnings {
        print_line(format_args!("warning: {warning}"));
    }
    let Some(link) = direct.link() else { return Err(Error::NoFrontend { why: "no link".to_string() }) };
    inherit(link.as_raw_fd()).trying("cannot hand over the link")?;
    // Maps that no program uses would go with this process's descriptors.
    for map in direct.loaded().object.maps() {
        inherit(map.as_fd().as_raw_fd()).trying("cannot hand over a map")?;
    }
    let (read, mut write) = pipe()?;
    write
        .write_all(&json(&setup_direct(policy, &direct, link))?)
        .trying("cannot write the frontend's setup")?;
    drop(write);
    Ok(execute(launch, read.as_raw_fd()))
}

/// The program, by itself or by way of systemd.
fn command(launch: Launch<'_>) -> Command {
    match unit::systemd_run().filter(|_| launch.unit) {
        Some(systemd_run) => {
            let mut command = Command::new(systemd_run);
            command.args(unit::arguments(launch.path, monotonic_ns())).arg(launch.program);
            command
        }
        None => {
            let mut command = Command::new(launch.program);
            command.arg0(launch.path);
            command
        }
    }
}

/// Keeps a descriptor open over an exec.
fn inherit(fd: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; no memory is involved.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds to the log of the policy from this binary, for example what the verifier said.
///
/// # Errors
/// The log cannot be written.
pub fn add_to_log(binary: &Path, text: &str) -> Result<()> {
    writeln!(open_log(binary)?, "{text}").trying("cannot write the policy's log")
}

/// The log of the policy from this binary, empty.
fn log_file(binary: &Path) -> Result<File> {
    let file = open_log(binary)?;
    // Not when it is opened: then it would be emptied before it is known to be ours.
    file.set_len(0).trying(format!("cannot empty the log of {}", binary.display()))?;
    Ok(file)
}

fn open_log(binary: &Path) -> Result<File> {
    let mut name = binary.file_name().unwrap_or_default().to_os_string();
    name.push(".log");
    let name = CString::new(name.as_bytes()).map_err(io::Error::other).trying("no name for a log")?;
    let folder = PrivateDir::at(Path::new(LOGS));
    let flags = libc::O_RDWR | libc::O_APPEND | libc::O_CREAT;
    Ok(folder.make().and_then(|f| f.open(&name, flags))?)
}

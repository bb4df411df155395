//! A policy that runs, read through its maps.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use scx_upgrade_protocol::Frontend;
use scx_upgrade_protocol::Memory;
use scx_upgrade_protocol::Place;
use scx_upgrade_protocol::Records;

use crate::typed::Scope;
use crate::typed::State;
use crate::typed::Statistics;
use crate::typed::Value;

/// How often, and how long apart, a detached scheduler's last word is looked for.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);
/// Length of the texts in the exit record, bytes.
const REASON: usize = 128;
const MESSAGE: usize = 1024;

/// Why something of a policy cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The policy has no value of that name and size.
    NoValue {
        /// What was asked for.
        what: String,
    },
    /// The kernel refused something.
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The engine's setup makes no sense.
    Setup {
        /// Why.
        why: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::NoValue { what } => write!(f, "the policy has no value {what} of that size"),
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Setup { why } => write!(f, "what scx-upgrade says of the policy makes no sense: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// How a policy's time ended.
pub(crate) enum Ended {
    /// Another policy runs, or the host was detached: in words.
    Superseded(String),
    /// The kernel ejected the scheduler, for this reason.
    Ejected(String),
}

/// A policy that runs, seen from its frontend.
#[derive(Debug)]
pub struct Running {
    maps: BTreeMap<u32, MapHandle>,
    variables: BTreeMap<String, Place>,
    scopes: BTreeMap<String, Records>,
    memory: Memory,
    load: u64,
    probation: Option<PathBuf>,
}

impl Running {
    pub(crate) fn open(setup: &Frontend) -> Result<Running, Error> {
        let of_variables = setup.variables.values().map(|place| place.map);
        let of_scopes = setup.scopes.values().map(|records| records.map);
        let ids: BTreeSet<u32> = of_variables.chain(of_scopes).chain([setup.memory.map]).collect();
        let open = |id| match MapHandle::from_map_id(id) {
            Ok(map) => Ok((id, map)),
            Err(e) => Err(Error::Io { what: "cannot open a map of the policy", source: io::Error::other(e) }),
        };
        let maps = ids.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Running {
            maps,
            variables: setup.variables.clone(),
            scopes: setup.scopes.clone(),
            memory: setup.memory.clone(),
            load: setup.load,
            probation: setup.probation.as_ref().map(PathBuf::from),
        })
    }

    /// The value of a global variable of the BPF half.
    ///
    /// # Errors
    /// [`Error::NoValue`] if it has none of that name and size.
    pub fn read<T: Value>(&self, name: &str) -> Result<T, Error> {
        self.global(name).and_then(|bytes| T::from_bytes(&bytes)).ok_or_else(|| no_value(name))
    }

    /// What the BPF half has counted.
    ///
    /// # Errors
    /// [`Error::NoValue`] if it has other globals than `S` says.
    pub fn stats<S: Statistics>(&self) -> Result<S, Error> {
        S::read(&mut |name| self.global(name)).ok_or_else(|| no_value("statistics"))
    }

    /// The state of a task, by its thread id.
    ///
    /// # Errors
    /// There is no such task, no record of it yet, or `S` is not the policy's.
    pub fn task<S: State>(&self, tid: i32) -> Result<S, Error> {
        // A pidfd of any thread, not of leaders only, since Linux 6.9; every kernel with sched_ext is younger.
        const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
        // SAFETY: the call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) };
        if fd < 0 {
            return Err(Error::Io { what: "cannot open the task", source: io::Error::last_os_error() });
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        self.state(Scope::Task, &pidfd.as_raw_fd().to_ne_bytes(), &format!("of task {tid}"))
    }

    /// The state of a cgroup, by its folder.
    ///
    /// # Errors
    /// There is no such cgroup, no record of it yet, or `S` is not the policy's.
    pub fn cgroup<S: State>(&self, folder: &Path) -> Result<S, Error> {
        let open =
            File::open(folder).map_err(|source| Error::Io { what: "cannot open the cgroup", source })?;
        self.state(
            Scope::Cgroup,
            &open.as_fd().as_raw_fd().to_ne_bytes(),
            &format!("of {}", folder.display()),
        )
    }

    /// The state of a CPU.
    ///
    /// # Errors
    /// There is no such CPU, or `S` is not the policy's.
    pub fn cpu<S: State>(&self, cpu: u32) -> Result<S, Error> {
        self.state(Scope::Cpu, &cpu.to_ne_bytes(), &format!("of CPU {cpu}"))
    }

    /// The policy's one global record.
    ///
    /// # Errors
    /// `S` is not the policy's.
    pub fn global_state<S: State>(&self) -> Result<S, Error> {
        self.state(Scope::Global, &0u32.to_ne_bytes(), "of the global record")
    }

    fn state<S: State>(&self, scope: Scope, key: &[u8], what: &str) -> Result<S, Error> {
        let read = || {
            let records = self.scopes.get(scope.name()).filter(|_| S::SCOPE == scope)?;
            let record = self.value(records.map, key)?;
            S::read(&mut |name| {
                let (first, size) = *records.columns.get(name)?;
                Some(record.get(first..first + size)?.to_vec())
            })
        };
        read().ok_or_else(|| no_value(what))
    }

    fn global(&self, name: &str) -> Option<Vec<u8>> {
        let place = self.variables.get(name)?;
        let value = self.value(place.map, &0u32.to_ne_bytes())?;
        Some(value.get(place.offset..place.offset + place.size)?.to_vec())
    }

    fn value(&self, map: u32, key: &[u8]) -> Option<Vec<u8>> {
        self.maps.get(&map)?.lookup(key, MapFlags::ANY).ok()?
    }

    /// How the policy's time ended, once it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let memory = self.value(self.memory.map, &0u32.to_ne_bytes())?;
        if let Some(exit) = self.exit(&memory) {
            return Some(exit);
        }
        let active = word(&memory, self.memory.active)?;
        let slot = (active & 0xff) as usize;
        let load = word(&memory, self.memory.loads + 8 * slot)?;
        // A guard may take the policy back, and then this process is its frontend again.
        let superseded = self.load != 0 && load != self.load && !self.in_probation();
        superseded.then(|| {
            let generation = active >> 8 & 0xff_ffff;
            Ended::Superseded(format!("superseded by generation {generation}"))
        })
    }

    fn exit(&self, memory: &[u8]) -> Option<Ended> {
        let kind = word(memory, self.memory.exit_kind).filter(|kind| *kind != 0)?;
        let reason = text(memory, self.memory.exit_reason, REASON);
        let reason = match text(memory, self.memory.exit_msg, MESSAGE) {
            message if message.is_empty() => reason,
            message => format!("{reason}: {message}"),
        };
        Some(match self.memory.detached.contains(&kind) {
            true => Ended::Superseded(format!("the scheduler was detached: {reason}")),
            false => Ended::Ejected(reason),
        })
    }

    /// Why the kernel ended the scheduler, waited for.
    pub(crate) fn wait_for_exit(&self) -> Option<Ended> {
        (0..LOOKS).find_map(|_| {
            let memory = self.value(self.memory.map, &0u32.to_ne_bytes())?;
            let exit = self.exit(&memory);
            if exit.is_none() {
                thread::sleep(LOOK);
            }
            exit
        })
    }

    /// Does a guard hold its lock?
    fn in_probation(&self) -> bool {
        let held = |path: &PathBuf| File::open(path).is_ok_and(|file| file.try_lock().is_err());
        self.probation.as_ref().is_some_and(held)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn text(bytes: &[u8], at: usize, size: usize) -> String {
    let bytes = bytes.get(at..at + size).unwrap_or_default();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_string()
}

fn no_value(what: &str) -> Error {
    Error::NoValue { what: what.to_string() }
}

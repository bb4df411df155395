//! A process that is killed at a system call of one's choice, by ptrace: nothing in the program under test knows of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What `scx-upgrade -v` writes at the beginning of a step.
const STEP: &str = "step: ";
/// A stop for a system call, with PTRACE_O_TRACESYSGOOD.
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Where to kill: at the entry into the system call of this number within a step; 0 is the one that says that it begins.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The step, as the program calls it.
    pub step: &'a str,
    /// Which call of it.
    pub call: usize,
}

/// How the process ended.
#[derive(Debug)]
pub struct Traced {
    /// Was it killed at the place?
    pub killed: bool,
    /// Its exit code, where it ended by itself.
    pub code: Option<i32>,
    /// The steps that it came to, and how many system calls each had.
    pub calls: BTreeMap<String, usize>,
}

/// Run the command, and kill it at `place`, if it comes there. Only its main thread is stopped.
///
/// # Errors
/// The kernel does not let it be traced.
pub fn run(command: &mut Command, place: Option<Place<'_>>) -> io::Result<Traced> {
    // SAFETY: one system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    wait(pid)?;
    trace(libc::PTRACE_SETOPTIONS, pid, (libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL) as usize)?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut traced = Traced { killed: false, code: None, calls: BTreeMap::new() };
    let (mut step, mut signal) = (String::new(), 0);
    loop {
        trace(libc::PTRACE_SYSCALL, pid, signal)?;
        let status = wait(pid)?;
        if libc::WIFEXITED(status) {
            traced.code = Some(libc::WEXITSTATUS(status));
            return Ok(traced);
        }
        if libc::WIFSIGNALED(status) {
            return Ok(traced);
        }
        let stopped_by = libc::WSTOPSIG(status);
        signal = if stopped_by == SYSCALL_STOP { 0 } else { stopped_by as usize };
        if stopped_by != SYSCALL_STOP {
            continue;
        }
        let Some(call) = Call::entered(pid)? else { continue };
        if let Some(begun) = call.begins(&memory) {
            step = begun;
        }
        if step.is_empty() {
            continue;
        }
        let count = traced.calls.entry(step.clone()).or_insert(0);
        let here = *count;
        *count += 1;
        // A step may have fewer calls than it had another time: then it is killed at the beginning of the next.
        let passed = |place: Place<'_>| place.step != step && traced.calls.contains_key(place.step);
        if place.is_some_and(|place| (place.step == step && place.call == here) || passed(place)) {
            // SAFETY: no memory is involved. The child has not been waited for, so its id is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            wait(pid)?;
            traced.killed = true;
            return Ok(traced);
        }
    }
}

/// A system call that is about to be made.
struct Call {
    number: u64,
    args: [u64; 6],
}

impl Call {
    /// `None` at the return from one.
    fn entered(pid: libc::pid_t) -> io::Result<Option<Call>> {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        // SAFETY: `info` has room for `size` bytes.
        let ret = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()) };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all bytes are set, by zeroed() or the kernel, and any are a value.
        let info = unsafe { info.assume_init() };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // SAFETY: `op` says that this is the member of the union.
        let entry = unsafe { info.u.entry };
        Ok(Some(Call { number: entry.nr, args: entry.args }))
    }

    /// The step that a call announces, if it does.
    fn begins(&self, memory: &File) -> Option<String> {
        if self.number != libc::SYS_write as u64 {
            return None;
        }
        let mut text = vec![0; usize::try_from(self.args[2]).ok()?.min(64)];
        memory.read_exact_at(&mut text, self.args[1]).ok()?;
        let text = String::from_utf8_lossy(&text);
        Some(text.strip_prefix(STEP)?.trim_end().to_owned())
    }
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: these requests take numbers.
    match unsafe { libc::ptrace(request, pid, 0, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn wait(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is a number of ours.
    match unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

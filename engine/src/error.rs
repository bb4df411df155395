//! What can go wrong, in words for the person who has to act on it.

use std::io;
use std::path::PathBuf;

use state_migrate::augment::AugmentError;
use state_migrate::btf::BtfError;
use state_migrate::plan::PlanError;
use state_migrate::schema::SchemaError;
use state_migrate::snapshot::SnapshotError;

use crate::exit::Exit;
use crate::kernel::messages;
use crate::os::private_dir::PrivateDirError;

/// What a reattach costs, for messages.
pub const PRICE: &str = "the scheduler is detached and the new one attached, and every task spends the time in \
    between, a fraction of a second with some thousand tasks, on the default scheduler; state is kept";

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that a swap, or a command around it, can fail with. Unless the variant says otherwise, the scheduler
/// that ran before still runs, untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error("changing the scheduler needs root: run this with sudo")]
    NotRoot,
    /// Root, but without what root can do elsewhere.
    #[error(
        "this process is root, but lacks {missing}: it is in a container or was started without them; run it on the \
         machine itself, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    NotPermitted {
        /// The capabilities.
        missing: String,
    },
    /// A kernel of before what is tested.
    #[error("this kernel is {release}: sched_ext as it is needed here is in 6.16 and newer; boot such a one")]
    OldKernel {
        /// `uname -r`
        release: String,
    },
    /// No BTF.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing), without which no policy can be fitted to it: boot \
         one built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// BTF without the struct_ops of sched_ext.
    #[error(
        "this kernel's BTF has no struct_ops `sched_ext_ops`, so no scheduler can be attached: boot one built with \
         CONFIG_SCHED_CLASS_EXT=y and CONFIG_BPF_JIT=y"
    )]
    NoStructOps,
    /// A kernel that lacks functions that the host calls.
    #[error("this kernel lacks {}, which the host calls: boot 6.16 or newer", kfuncs.join(", "))]
    MissingKfuncs {
        /// Their names.
        kfuncs: Vec<String>,
    },
    /// The compiler of BPF is off.
    #[error(
        "the kernel's BPF compiler is off, and schedulers run compiled only: sysctl net.core.bpf_jit_enable=1, and look \
         for what set it to 0 in /etc/sysctl.d"
    )]
    NoJit,
    /// Booted with CPUs taken out of the scheduling domains.
    #[error(
        "this kernel was booted with `{option}`, which takes CPUs {cpus} out of the scheduling domains, and the kernel refuses \
         sched_ext then: boot without it. A cpuset with cpuset.cpus.partition=isolated isolates CPUs without a boot option"
    )]
    IsolatedCpus {
        /// The boot option.
        option: String,
        /// The CPUs.
        cpus: String,
    },
    /// No deadline bandwidth left for a scheduler.
    #[error(
        "the kernel would refuse to attach the scheduler (EBUSY, deadline bandwidth): {demand}. Raise the limit with sysctl \
         kernel.sched_rt_runtime_us=950000 (of kernel.sched_rt_period_us; -1: no limit), end SCHED_DEADLINE tasks, or lower \
         /sys/kernel/debug/sched/ext_server/cpu*/runtime"
    )]
    DeadlineBandwidth {
        /// What is reserved and what may be, see [`crate::kernel::deadline::Demand`].
        demand: String,
    },
    /// The cgroup that pays for the records is too small.
    #[error(
        "the cgroup {cgroup} has {left_mib} MiB of memory left, and the records of {tasks} tasks take up to {needs_mib} MiB. \
         They are charged to the cgroup of the process that starts the host, and when it is full each fork on the machine \
         fails: start it from another cgroup (systemd-run --slice=system.slice -p MemoryMax=infinity), or raise its limit"
    )]
    LittleMemory {
        /// The cgroup.
        cgroup: String,
        /// What it has left.
        left_mib: u64,
        /// What the records may take.
        needs_mib: u64,
        /// Tasks that there can be.
        tasks: u32,
    },
    /// No sched_ext in the kernel.
    #[error(
        "this kernel has no sched_ext (/sys/kernel/sched_ext is missing): boot one built with \
         CONFIG_SCHED_CLASS_EXT=y, version 6.16 or newer"
    )]
    NoSchedExt,
    /// The BTF of this kernel is broken.
    #[error(
        "this kernel's BTF is broken, no sched_ext scheduler can be loaded: {} lack their `_impl` twin. It was built \
         with a pahole older than 1.26; boot another build",
        kfuncs.join(", ")
    )]
    BrokenBtf {
        /// The kfuncs with an implicit argument that BTF shows.
        kfuncs: Vec<String>,
    },
    /// No BPF file system.
    #[error("{} is not a BPF file system: mount -t bpf bpf /sys/fs/bpf", path.display())]
    NoBpffs {
        /// Where it was expected.
        path: PathBuf,
    },
    /// A scheduler not of this project runs.
    #[error(
        "another sched_ext scheduler is running ({ops}, state {state}) that scx-upgrade did not start: stop it first, or \
         `scx-upgrade run --replace`"
    )]
    OtherScheduler {
        /// Its name.
        ops: String,
        /// The kernel's `state`.
        state: String,
    },
    /// A scheduler not of this project runs, and cannot be taken off and put back.
    #[error("{ops} cannot be replaced: {why}. Stop it as it was started, and `scx-upgrade run` then")]
    NotReplaceable {
        /// Its name.
        ops: String,
        /// Why not.
        why: String,
    },
    /// No host.
    #[error("no scheduler is running under scx-upgrade: start one with `scx-upgrade run`")]
    NothingRunning,
    /// Someone else holds the lock.
    #[error(
        "another command is changing the scheduler ({holder}), and it did not end within {seconds} s: wait for it and \
         try again, or wait longer with --timeout"
    )]
    Locked {
        /// Its process and command line.
        holder: String,
        /// How long was waited for it.
        seconds: f32,
    },
    /// What is asked for is what runs.
    #[error(
        "{policy} is running already, as generation {generation}: nothing was done. `scx-upgrade swap --again` swaps the same \
         binary in all the same"
    )]
    AlreadyRunning {
        /// The policy, as `name version`.
        policy: String,
        /// The generation that runs.
        generation: u32,
    },
    /// A policy was to be started, and one runs.
    #[error("a policy is running already: replace it with `scx-upgrade swap`")]
    Running,
    /// The object is not a policy.
    #[error("not a policy: {why}")]
    NotAPolicy {
        /// What is missing.
        why: String,
    },
    /// One of the SDK's own objects lacks a program or a map.
    #[error("this build is damaged: an object of its own has no {name}; build or install it anew")]
    BadBuild {
        /// What is missing.
        name: String,
    },
    /// A policy's binary does not say with which settings it is to be loaded.
    #[error("{} does not describe itself: {why}", path.display())]
    NotDescribed {
        /// The binary.
        path: PathBuf,
        /// What came instead.
        why: String,
        /// Did it not understand its arguments?
        usage: bool,
    },
    /// The policy that runs cannot get a frontend.
    #[error("cannot start the frontend of the policy that runs: {why}")]
    NoFrontend {
        /// Why not.
        why: String,
    },
    /// Policy and host were built for different ABIs.
    #[error(
        "the policy was built for host version {policy}, the host that runs is version {host}: rebuild the policy \
         with a matching SDK, or `scx-upgrade stop` and run it anew"
    )]
    AbiMismatch {
        /// The policy's.
        policy: u32,
        /// The host's.
        host: u32,
    },
    /// The policy asks for what a swap in place cannot give.
    #[error("{policy} cannot be swapped in in place: {why}. With --allow-reattach it can: {PRICE}")]
    NeedsReattach {
        /// Its name.
        policy: String,
        /// What differs.
        why: String,
    },
    /// The host that runs is of another version than this tool's.
    #[error(
        "the host that runs is of version {theirs}, this program brings version {ours}: use the program that started \
         it, or `scx-upgrade swap --allow-reattach`, which replaces it: {PRICE}"
    )]
    OtherHost {
        /// The version that this program brings.
        ours: u32,
        /// The version that runs.
        theirs: u32,
    },
    /// The host that runs is of another version, and its state cannot be taken over.
    #[error(
        "the host that runs is of version {theirs}, and its state cannot be taken over as it stands: {why}. \
         `scx-upgrade snapshot save FILE` with the program that started it, `scx-upgrade stop`, and \
         `scx-upgrade run --restore FILE` with this one carry it"
    )]
    OtherRecords {
        /// The version that runs.
        theirs: u32,
        /// What differs.
        why: String,
    },
    /// The policy asks for flags that this kernel refuses.
    #[error(
        "{policy} asks for the ops flags {flags:#x}, which this kernel does not know: it would refuse to attach it"
    )]
    UnknownFlags {
        /// Its name.
        policy: String,
        /// The bits.
        flags: u64,
    },
    /// No scheduler is attached, and the records of the last one are still there.
    #[error(
        "no scheduler is attached, {why}: tasks are on the default scheduler, and their state is kept. The next \
         `scx-upgrade run` or `rollback` attaches again with it, `scx-upgrade stop` forgets it"
    )]
    Detached {
        /// How that came.
        why: String,
    },
    /// The host was to be replaced by one of another version, and the program that did so was killed.
    #[error(
        "the replacement of the host by one of another version was cut off: the next `scx-upgrade swap`, `run` or \
         `rollback` finishes it"
    )]
    HalfReplaced,
    /// A snapshot that cannot be made, written, read or used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A snapshot was to be restored where there is state already.
    #[error(
        "there is state already, which --restore would mix with the snapshot's: `scx-upgrade stop` forgets it, or \
         restore into what runs with `scx-upgrade snapshot restore`"
    )]
    StateIsThere,
    /// A reattach failed, and the scheduler that ran before runs again.
    #[error("{source}; the scheduler that ran before was attached again, with its state")]
    PutBack {
        /// Why it failed.
        source: Box<Error>,
    },
    /// A reattach failed, and so did attaching again what ran before.
    #[error(
        "{source}; and the scheduler that ran before cannot be attached again: {again}. Its state is kept, and \
         `scx-upgrade run` attaches with it"
    )]
    NotPutBack {
        /// Why it failed.
        source: Box<Error>,
        /// Why the other cannot be attached.
        again: Box<Error>,
    },
    /// Parts of the policy's object have no effect in the host, or cannot run there: see [`crate::candidate::obstacles`].
    #[error("{policy}: {}", obstacles.join("; "))]
    NotHosted {
        /// Policy's name.
        policy: String,
        /// Each in words.
        obstacles: Vec<String>,
    },
    /// The state is not what the layout engine takes.
    #[error("state of the policy: {0}")]
    Schema(#[from] SchemaError),
    /// The state does not fit what is resident.
    #[error("the state cannot be carried: {0}")]
    Plan(#[from] PlanError),
    /// The augmented BTF.
    #[error("cannot lay out the state: {0}")]
    Augment(#[from] AugmentError),
    /// BTF that cannot be read.
    #[error("cannot read BTF: {0}")]
    Btf(#[from] BtfError),
    /// libbpf or the verifier refused the policy.
    #[error("{policy} does not load, the kernel or libbpf refused it: {source}\n{}", reason(log))]
    Load {
        /// Policy's name.
        policy: String,
        /// libbpf's error.
        source: libbpf_rs::Error,
        /// What libbpf and the verifier said.
        log: String,
    },
    /// Attached, but the kernel did not keep it.
    #[error(
        "the kernel did not enable {what}: state is {state}{}{}",
        exit_suffix(reason),
        messages::suffix(words)
    )]
    NotEnabled {
        /// What was attached.
        what: String,
        /// `/sys/kernel/sched_ext/state`
        state: String,
        /// From the exit record, may be empty.
        reason: String,
        /// What the kernel logged of it, may be empty.
        words: String,
    },
    /// The kernel refused to attach a scheduler.
    #[error("{what}: {source}{}", messages::suffix(words))]
    NotAttached {
        /// What was tried.
        what: String,
        /// The kernel's or libbpf's word.
        source: libbpf_rs::Error,
        /// What the kernel logged of it, may be empty.
        words: String,
    },
    /// The kernel took the host off earlier.
    #[error(
        "the host was taken off by the kernel{}: tasks are on the default scheduler",
        exit_suffix(reason)
    )]
    Ejected {
        /// From the exit record.
        reason: String,
    },
    /// The kernel ejected the host while a command was at work.
    #[error(
        "the kernel ejected the host while this command was at work{}: tasks are on the default scheduler{}. State is kept: \
         `scx-upgrade recover` attaches the host again with the same policy, `scx-upgrade rollback` with the one before",
        exit_suffix(reason),
        after_suffix(done)
    )]
    EjectedMeanwhile {
        /// From the exit record, may be empty.
        reason: String,
        /// How far the command came, or what it failed with.
        done: String,
    },
    /// The host is stopped, and not all of it could be removed.
    #[error(
        "the host is detached and tasks are on the default scheduler, but not all of it is removed: {source}. \
         `scx-upgrade stop` again removes the rest"
    )]
    NotRemoved {
        /// What failed.
        source: Box<Error>,
    },
    /// The commit is done, and a step after it failed.
    #[error(
        "{runs}: the commit is done, and a step after it failed: {source}. The next command that changes something \
         finishes it"
    )]
    AfterCommit {
        /// What runs.
        runs: String,
        /// What failed.
        source: Box<Error>,
    },
    /// The command that started a policy's process ended, or wants nothing done any more.
    #[error("interrupted before the commit: nothing was changed, and what ran before still runs")]
    Interrupted,
    /// The host that runs is this project's, and its pins cannot be seen.
    #[error("a host of scx-upgrade runs ({runs}), and its pins are hidden: {why}")]
    HiddenPins {
        /// What it runs, as far as the kernel's maps tell.
        runs: String,
        /// Why they cannot be seen, and what to do.
        why: String,
    },
    /// This process is in a namespace in which a command would fail.
    #[error("this process is in another {namespace} namespace than the machine's: {why}")]
    Namespace {
        /// `cgroup`, `user`, …
        namespace: &'static str,
        /// What fails there, and what to do.
        why: String,
    },
    /// No generation to go back to.
    #[error("nothing to roll back to: {why}")]
    NoRollback {
        /// Why.
        why: String,
    },
    /// Tasks were still on a queue that the running policy does not name.
    #[error("{queued} tasks are still on the queue {queue} of an earlier policy")]
    Stranded {
        /// Queue's name.
        queue: String,
        /// Tasks on it.
        queued: u64,
    },
    /// The ids of DSQs are used up.
    #[error(
        "all {used} ids of queues were given since the host was started: `scx-upgrade stop` and start again"
    )]
    NoQueueIds {
        /// How many there were.
        used: u64,
    },
    /// More CPUs than the host has room for.
    #[error(
        "this machine can have {cpus} CPUs, the host has room for {max}: build it with a larger SCX_UPGRADE_MAX_CPUS"
    )]
    TooManyCpus {
        /// CPUs that there can be.
        cpus: usize,
        /// Room.
        max: usize,
    },
    /// The pinned registry is damaged.
    #[error("the host's registry is damaged ({why}): `scx-upgrade stop` and start again")]
    Registry {
        /// How.
        why: String,
    },
    /// A BPF system call.
    #[error("{what}: {source}")]
    Bpf {
        /// What was tried.
        what: String,
        /// The kernel's or libbpf's word.
        source: libbpf_rs::Error,
    },
    /// A system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// A folder of this project's is not root's own.
    #[error("a folder of scx-upgrade's cannot be used: {0}")]
    PrivateDir(#[from] PrivateDirError),
    /// A setting that the policy does not have, or of another type.
    #[error("the policy has no setting `{name}` of {size} bytes in its read-only data")]
    NoSetting {
        /// Variable's name.
        name: String,
        /// Size of the value given.
        size: usize,
    },
    /// Something that was asked of a running policy is not there, or is of another type.
    #[error("the running policy has no {what} of the type that was asked for")]
    NoValue {
        /// What was asked for.
        what: String,
    },
}

fn exit_suffix(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn after_suffix(done: &str) -> String {
    if done.is_empty() { String::new() } else { format!("; before that, {done}") }
}

impl Error {
    /// What libbpf and the verifier said of an object that does not load. The message has only the reason.
    pub fn log(&self) -> Option<&str> {
        match self {
            Error::Load { log, .. } => Some(log),
            Error::PutBack { source } | Error::NotPutBack { source, .. } => source.log(),
            _ => None,
        }
    }

    /// The process's exit code for it.
    pub fn exit_code(&self) -> u8 {
        self.exit().code()
    }

    /// How a command ends that fails with it.
    pub fn exit(&self) -> Exit {
        match self {
            Error::NothingRunning => Exit::NothingRunning,
            Error::Plan(_)
            | Error::Schema(_)
            | Error::NeedsReattach { .. }
            | Error::OtherHost { .. }
            | Error::OtherRecords { .. } => Exit::Incompatible,
            Error::Ejected { .. }
            | Error::NotEnabled { .. }
            | Error::Detached { .. }
            | Error::NotPutBack { .. }
            | Error::NotRemoved { .. }
            | Error::EjectedMeanwhile { .. } => Exit::DefaultScheduler,
            Error::Snapshot(_) => Exit::Snapshot,
            Error::AfterCommit { .. } => Exit::AfterCommit,
            Error::NotDescribed { usage: true, .. } => Exit::Usage,
            Error::Interrupted => Exit::Interrupted,
            Error::AlreadyRunning { .. } => Exit::AlreadyRunning,
            _ => Exit::Failed,
        }
    }
}

/// Logs of so many lines are short enough for a message.
const SHORT_LOG: usize = 6;
/// Begin of a line of libbpf's that names a program, in quotes.
const PROGRAM: &str = "libbpf: prog '";

/// Most lines of the verifier's reason that a message shows.
const REASON_LINES: usize = 5;

/// The reason in a log of libbpf and the verifier: what the verifier says after the last instruction that it followed. Linux
/// v7.3 explains the reason there at length, and names the place under "At:".
fn reason(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.iter().rposition(|line| line.starts_with("-- END PROG LOAD LOG --"));
    let Some(end) = end.filter(|_| lines.len() > SHORT_LOG) else { return log.to_string() };
    let figures = ["processed ", "verification time ", "stack depth ", "mark_precise", "libbpf: "];
    let begin = lines[..end].iter().rposition(|line| is_instruction(line)).map_or(0, |last| last + 1);
    let said: Vec<&str> = lines[begin..end]
        .iter()
        .copied()
        .filter(|line| !line.trim().is_empty() && !figures.iter().any(|f| line.starts_with(f)))
        .collect();
    let why = said.split(|line| *line == "At:").next().unwrap_or_default();
    let why = why.iter().take(REASON_LINES).copied().collect::<Vec<_>>().join("\n");
    let place = said.iter().skip_while(|line| **line != "At:").nth(1);
    let place = place.map_or_else(String::new, |place| format!("\nat {}", place.trim()));
    let program = lines.iter().rev().find_map(|line| line.strip_prefix(PROGRAM)?.split('\'').next());
    let count = lines.len();
    format!(
        "{}: {why}{place}\nThe log has {count} lines: add -v, or read the policy's log in /run/scx-upgrade",
        program.unwrap_or("the verifier")
    )
}

/// Is it a line of the verifier's for an instruction, such as `17: (79) r1 = *(u64 *)(r0 +8)`?
fn is_instruction(line: &str) -> bool {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && line[digits..].starts_with(": (")
}

/// Adds what was tried to an error.
pub(crate) trait Trying<T> {
    fn trying(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Trying<T> for std::result::Result<T, libbpf_rs::Error> {
    fn trying(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Bpf { what: what.into(), source })
    }
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_reason_of_a_long_log_is_its_last_word() {
        let mut log = "libbpf: prog 'mine': BPF program load failed: -EACCES\n\
            libbpf: prog 'mine': -- BEGIN PROG LOAD LOG --\n"
            .to_string();
        (0..180).for_each(|i| log += &format!("{i}: (bf) r1 = r0\n"));
        log += "R0 invalid mem access 'map_value_or_null'\nprocessed 9 insns (limit 1000000)\n\
            -- END PROG LOAD LOG --\nlibbpf: prog 'mine': failed to load: -EACCES\n\
            libbpf: failed to load object 'scx_policy'";
        let said = reason(&log);
        assert!(said.starts_with("mine: R0 invalid mem access 'map_value_or_null'\n"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("187 lines"), "{said}");
    }

    #[test]
    fn the_reason_is_found_where_the_verifier_explains_it_after_the_instructions() {
        let mut log = "libbpf: prog 'mine': -- BEGIN PROG LOAD LOG --\n".to_string();
        (0..60).for_each(|i| log += &format!("{i}: (bf) r1 = r0\n"));
        log += "R0 invalid mem access 'scalar'\n\nVerification failed: Invalid dereference\n\nReason:\n  R0 is a scalar.\n\n\
            At:\n  mine @ mine.bpf.c:12:21\n  Instruction context:\n       15 | (85) call pc+5\n\nSuggestion:\n  \
            Check the pointer.\n\nprocessed 9 insns (limit 1000000)\n-- END PROG LOAD LOG --\n";
        let said = reason(&log);
        let wanted = "mine: R0 invalid mem access 'scalar'\nVerification failed: Invalid dereference\nReason:\n  \
            R0 is a scalar.\nat mine @ mine.bpf.c:12:21\n";
        assert!(said.starts_with(wanted), "{said}");
        assert_eq!(said.lines().count(), 6, "{said}");
    }

    #[test]
    fn a_short_log_is_shown_as_it_is() {
        let log = "libbpf: map 'x': failed to create: -EINVAL\nlibbpf: failed to load object 'scx_policy'";
        assert_eq!(reason(log), log);
    }
}

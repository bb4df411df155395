//! What the end-to-end tests share. They run as root inside the lab, one at a time, with the project's binaries in
//! `/bin`; a failure here is a failure of the test, so these helpers panic with what they saw.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod oracle;
pub mod trace;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use guest::load::Load;
use guest::load::LoadSpec;
use libbpf_rs::query::LinkInfoIter;
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::query::ProgInfoIter;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::observe::status::Status;

/// Where the host is pinned.
pub const PINS: &str = "/sys/fs/bpf/scx-upgrade";

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code, -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Run `scx-upgrade` with these arguments. A swap is asked for with `--again`: most tests do not care whether the same
/// policy runs already.
pub fn cli(args: &[&str]) -> Ran {
    let mut args = args.to_vec();
    if let Some(at) = args.iter().position(|arg| *arg == "swap") {
        args.insert(at + 1, "--again");
    }
    cli_exactly(&args)
}

/// Run `scx-upgrade` with exactly these arguments.
pub fn cli_exactly(args: &[&str]) -> Ran {
    command(Command::new("/bin/scx-upgrade").args(args))
}

/// What a verb with `--json` prints.
pub fn json(args: &[&str]) -> serde_json::Value {
    let ran = cli_exactly(&[&["--json"], args].concat());
    serde_json::from_str(&ran.out)
        .unwrap_or_else(|e| panic!("scx-upgrade {args:?} prints no JSON ({e}): {} {}", ran.out, ran.err))
}

/// Run `scx-upgrade` as an ordinary user.
pub fn cli_as_nobody(args: &[&str]) -> Ran {
    command(Command::new("/bin/scx-upgrade").args(args).uid(65534).gid(65534))
}

/// Run any command.
pub fn command(command: &mut Command) -> Ran {
    let out = ahead(command).stdin(Stdio::null()).output().expect("cannot start the command");
    Ran {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Weighed above the load: what is tested is what a command does to the load, not how long it waits behind it, and the
/// verifier's work is long where CPUs are emulated.
fn ahead(command: &mut Command) -> &mut Command {
    // SAFETY: setpriority() is one system call, and may be made between fork and exec. Who may not stays as it is.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, -15);
            Ok(())
        })
    }
}

/// Run a verb that must succeed and gives a report.
pub fn report(args: &[&str]) -> Report {
    let ran = cli(&[&["--json"], args].concat());
    assert_eq!(ran.code, 0, "scx-upgrade {args:?} failed: {} {}", ran.out, ran.err);
    serde_json::from_str(&ran.out).expect("the report is no JSON")
}

/// How many rounds of the same to do: `all`, or a quarter of them where the environment says so, but at least 2.
pub fn rounds(all: u32) -> u32 {
    let quarter = std::env::var("SCX_UPGRADE_ROUNDS").is_ok_and(|rounds| rounds == "quarter");
    if quarter { all.div_ceil(4).max(2) } else { all }
}

/// How many swaps to do: `SCX_UPGRADE_SWAPS`, or so many, fewer on older kernels.
pub fn swaps(usual: u32) -> u32 {
    std::env::var("SCX_UPGRADE_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| rounds(usual))
}

/// `scx-upgrade status`.
pub fn status() -> Status {
    let ran = cli(&["--json", "status"]);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("status is no JSON ({e}): {}", ran.out))
}

/// Begin a test from nothing: no scheduler, no pins, no process of an earlier test.
pub fn fresh() {
    let ran = cli(&["stop"]);
    assert!(ran.code == 0 || ran.code == 3, "cannot stop what an earlier test left: {}", ran.err);
    let others = [
        "queue_single",
        "queue_cpu",
        "queue_llc",
        "queue_cgroup",
        "sweep_1",
        "sweep_2",
        "last_off",
        "last_on",
        "endless",
        "ticking",
        "two",
    ];
    for name in [
        "scx_fair_v1",
        "scx_fair_v2",
        "scx_mini",
        "scx_core",
        "scx_quota",
        "plain",
        "bare",
        "ledger_a",
        "ledger_b",
        "misbehave",
        "good",
    ]
    .into_iter()
    .chain(others)
    {
        for pid in pids(name) {
            kill(pid, libc::SIGKILL);
        }
    }
    assert!(
        sysfs::wait_for_state(sysfs::state, "disabled", Duration::from_secs(60)),
        "state is {}",
        sysfs::state()
    );
    assert_eq!(pins(), 0, "pins are left");
}

/// Processes whose binary has this name.
pub fn pids(name: &str) -> Vec<i32> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            // A suite may have the name of the program that it tests.
            exe.file_name().is_some_and(|n| n == name) && !exe.starts_with("/tests")
        })
        .collect()
}

/// Send a signal.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// Start a policy's binary by hand and wait until it runs.
pub fn start_by_hand(binary: &str, args: &[&str]) -> Child {
    let child = Command::new(binary).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the policy runs", || sysfs::state() == "enabled");
    child
}

/// Wait, a long time if need be: nothing here may depend on how fast the machine is.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Entries pinned for the host.
pub fn pins() -> usize {
    std::fs::read_dir(PINS).map(Iterator::count).unwrap_or(0)
}

/// Is anything pinned there?
pub fn link_is_pinned() -> bool {
    Path::new(PINS).join("link").exists()
}

/// How many BPF objects the kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Objects {
    /// Programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
    /// Links.
    pub links: usize,
    /// Entries in the host's folder.
    pub pins: usize,
}

/// Count them.
pub fn objects() -> Objects {
    Objects {
        programs: ProgInfoIter::default().count(),
        maps: MapInfoIter::default().count(),
        links: LinkInfoIter::default().count(),
        pins: pins(),
    }
}

/// Watches, all the time, that the kernel's scheduler stays enabled.
#[derive(Debug)]
pub struct EnabledWatch {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<Option<String>>>,
    seq: u64,
}

impl EnabledWatch {
    /// Begin.
    pub fn start() -> EnabledWatch {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (stop.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let state = sysfs::state();
                if state != "enabled" {
                    return Some(state);
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        });
        // What is watched may be over before a new thread gets its first turn.
        while looks.load(Ordering::Relaxed) == 0 && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        EnabledWatch { stop, looks, thread: Some(thread), seq: sysfs::enable_seq() }
    }

    /// End: fails if the scheduler was off at any look, or was off and on between two.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        assert_eq!(seen, None, "the kernel's state left enabled");
        assert_eq!(sysfs::enable_seq(), self.seq, "the kernel enabled a scheduler anew");
        assert!(self.looks.load(Ordering::Relaxed) > 0, "the watch never looked");
    }
}

/// A load of `threads` threads of every kind.
pub fn load(threads: usize) -> Load {
    let mut spec = LoadSpec::mixed(threads);
    spec.program = Some("/bin/load".into());
    Load::start(spec).expect("the load does not start")
}

/// Wait until every kind of this load has got on.
pub fn advances(load: &Load) {
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
}

/// A load whose sleepers sleep for `mean_s` seconds on average: long against a swap, which takes seconds on an old or a busy
/// machine, so that it finds most of them as it left them.
pub fn sleepy_load(threads: usize, mean_s: f64) -> Load {
    let mut spec = LoadSpec::mixed(threads);
    spec.wakes_per_s = threads as f64 / mean_s;
    spec.program = Some("/bin/load".into());
    Load::start(spec).expect("the load does not start")
}

/// A cgroup, removed with the value unless it is the root.
#[derive(Debug)]
pub struct Cgroup {
    path: std::path::PathBuf,
    dir: std::fs::File,
}

impl Cgroup {
    /// The root.
    pub fn root() -> Cgroup {
        Cgroup::at("/sys/fs/cgroup".into())
    }

    /// A new one below the root.
    pub fn new(name: &str) -> Cgroup {
        let path = Path::new("/sys/fs/cgroup").join(name);
        std::fs::create_dir_all(&path).unwrap();
        Cgroup::at(path)
    }

    fn at(path: std::path::PathBuf) -> Cgroup {
        let dir = std::fs::File::open(&path).unwrap();
        Cgroup { path, dir }
    }

    /// Its key in a map of cgroup storage: an open descriptor.
    pub fn key(&self) -> u32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.dir) as u32
    }

    /// The kernel's id of it, which on 64 bits is the number of its folder.
    pub fn id(&self) -> u64 {
        std::fs::metadata(self.path()).unwrap().ino()
    }

    /// Let the cgroups in this one have the cpu controller: only such are cgroups to the scheduler.
    pub fn share_cpu(&self) {
        std::fs::write(self.path.join("cgroup.subtree_control"), "+cpu").unwrap();
    }

    /// Write one of its files, such as `cpu.max`.
    pub fn set(&self, file: &str, value: &str) {
        std::fs::write(self.path.join(file), value).unwrap();
    }

    /// `cpu.weight`.
    pub fn set_weight(&self, weight: u32) {
        std::fs::write(self.path.join("cpu.weight"), weight.to_string()).unwrap();
    }

    /// Let its tasks stand still, all of them by the end of the call, or go on.
    pub fn freeze(&self, still: bool) {
        self.set("cgroup.freeze", if still { "1" } else { "0" });
        let frozen =
            || std::fs::read_to_string(self.path.join("cgroup.events")).unwrap().contains("frozen 1");
        wait_until("a cgroup stands still, or not", || frozen() == still);
    }

    /// The CPU time that its tasks, and those in it, have had, microseconds.
    pub fn usage_us(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join("cpu.stat")).unwrap();
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        usage.parse().unwrap()
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Move a process here. One that has just ended is no failure.
    pub fn take(&self, pid: i32) {
        let _ = std::fs::write(self.path.join("cgroup.procs"), pid.to_string());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path != Path::new("/sys/fs/cgroup") {
            remove(&self.path);
        }
    }
}

/// Remove a cgroup and those in it. A process may fork while it is moved out, so more than once.
fn remove(path: &Path) {
    for _ in 0..1000 {
        let inner = std::fs::read_dir(path).into_iter().flatten().flatten();
        inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).for_each(|e| remove(&e.path()));
        for pid in std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = std::fs::write("/sys/fs/cgroup/cgroup.procs", pid);
        }
        if std::fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    eprintln!("the cgroup {} cannot be removed", path.display());
}

/// A process that computes, in a cgroup.
#[derive(Debug)]
pub struct Busy(i32);

impl Busy {
    /// Start one.
    pub fn start(group: &Cgroup) -> Busy {
        // SAFETY: the child makes one system call and computes: it takes no lock and allocates nothing.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no memory is involved.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // Not spin_loop(): the emulator leaves the translated code at each such hint, which takes it ten times as long where
            // it counts instructions.
            loop {
                std::hint::black_box(());
            }
        }
        assert!(pid > 0, "cannot fork");
        group.take(pid);
        Busy(pid)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        kill(self.0, libc::SIGKILL);
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// Makes and removes cgroups all the time, with processes of a load moving in and out.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Churn {
    /// Begin.
    pub fn start(load: &Load) -> Churn {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let pids: Vec<_> = load.pids().map(|pid| pid as i32).collect();
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut groups) = (0, Vec::new());
            while !flag.load(Ordering::Relaxed) {
                let group = Cgroup::new(&format!("churn{}", rounds % 7));
                group.take(pids[rounds as usize % pids.len()]);
                groups.push(group);
                if groups.len() == 4 {
                    // Its processes go to the root.
                    groups.remove(0);
                }
                rounds += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            rounds
        });
        Churn { stop, thread }
    }

    /// End: fails if hardly any came and went.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.thread.join().unwrap() > 10, "cgroups came and went");
    }
}

//! What the verbs say and refuse around a swap: exit codes, `list`, `info`, `--dry-run`, `--to`, `--no-carry`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::Ran;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::cli_exactly;
use e2e::command;
use e2e::fresh;
use e2e::json;
use e2e::load;
use e2e::oracle;
use e2e::report;
use e2e::status;
use e2e::wait_until;
use scx_upgrade_engine::kernel::sysfs;
use state_migrate::Scope;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const PLAIN: &str = "/bin/plain";

#[test]
fn what_runs_already_is_not_swapped_in_again() {
    fresh();
    report(&["run", V1, "--", "--slice-us", "3000"]);
    let watch = EnabledWatch::start();
    let same = cli_exactly(&["swap", V1, "--", "--slice-us", "3000"]);
    assert_eq!(same.code, 77, "{}", same.err);
    assert!(same.err.contains("scx_fair 1.0.0 is running already, as generation 1"), "{}", same.err);
    let started = cli_exactly(&["run", V1, "--", "--slice-us", "3000"]);
    assert_eq!(started.code, 77, "{}", started.err);
    assert_eq!(cli_exactly(&["rollback", "--to", "1"]).code, 77);
    assert_eq!(status().generation, 1);
    // Other arguments are another thing to run, and whoever insists is obeyed.
    assert_eq!(cli_exactly(&["swap", V1]).code, 0);
    assert_eq!(cli_exactly(&["switch", V1]).code, 77);
    assert_eq!(cli_exactly(&["swap", "--again", V1]).code, 0);
    assert_eq!(status().generation, 3);
    watch.finish();
    fresh();
}

#[test]
fn any_loaded_generation_can_be_gone_back_to() {
    fresh();
    assert_eq!(cli(&["list"]).code, 3);
    report(&["run", V1]);
    report(&["swap", V2]);
    report(&["swap", PLAIN]);
    let list = cli(&["list"]);
    assert_eq!(list.code, 0, "{}", list.err);
    for words in ["scx_fair 1.0.0", "rollback --to 1", "rollback goes here", "running"] {
        assert!(list.out.contains(words), "{words:?} is not in: {}", list.out);
    }
    assert!(list.out.lines().all(|line| line.len() <= 80), "{}", list.out);
    let slots = json(&["list"]);
    assert_eq!(slots.as_array().unwrap().len(), 3);
    assert!(slots[0]["active"].as_bool().unwrap() && slots[0]["generation"] == 3, "{slots}");
    assert_eq!(slots[0]["binary"]["sha256"].as_str().unwrap().len(), 64);

    let watch = EnabledWatch::start();
    let unknown = cli(&["rollback", "--to", "9"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("no generation 9") && unknown.err.contains("1 (scx_fair 1.0.0)"),
        "{}",
        unknown.err
    );
    let back = report(&["rollback", "--to", "1"]);
    assert_eq!((back.to.as_str(), back.generation), ("scx_fair 1.0.0", 4));
    assert_eq!(report(&["undo"]).to, "plain 0.1.0", "the one before is the one that ran");
    assert_eq!(report(&["rollback", "--to", "2"]).to, "scx_fair 2.0.0");
    // Two more policies: the oldest go.
    for binary in ["/bin/sweep_1", "/bin/sweep_2"] {
        report(&["swap", binary]);
    }
    let gone = cli(&["rollback", "--to", "4"]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("is loaded no more: swap to its binary"), "{}", gone.err);
    watch.finish();
    fresh();
}

#[test]
fn a_dry_run_says_what_would_be_and_does_nothing() {
    fresh();
    let run = cli(&["run", "--dry-run", V1]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.starts_with("would start scx_fair 1.0.0, as generation 1\n"), "{}", run.out);
    assert!(run.out.ends_with("nothing was done: --dry-run\n"), "{}", run.out);
    assert_eq!(sysfs::state(), "disabled");
    assert_eq!(cli(&["swap", "--dry-run", V1]).code, 3);
    assert_eq!(cli(&["rollback", "--dry-run"]).code, 3);
    assert_eq!(cli(&["stop", "--dry-run"]).code, 3);

    report(&["run", V1]);
    report(&["swap", V2]);
    let before = status();
    let (seq, watch) = (sysfs::enable_seq(), EnabledWatch::start());
    let swap = cli(&["swap", "--dry-run", PLAIN]);
    assert!(
        swap.out.starts_with("would swap in plain 0.1.0 for scx_fair 2.0.0, as generation 3\n"),
        "{}",
        swap.out
    );
    assert!(swap.out.contains("handed over  queue fair_queue"), "{}", swap.out);
    let back = cli(&["rollback", "--dry-run"]);
    let says = "would roll back from scx_fair 2.0.0 to scx_fair 1.0.0 of generation 1, as generation 3\n";
    assert!(back.out.starts_with(says), "{}", back.out);
    let stop = cli(&["stop", "--dry-run"]);
    assert!(stop.out.starts_with("would stop scx_fair 2.0.0"), "{}", stop.out);
    let plan = json(&["swap", "--dry-run", "--no-carry", V1]);
    assert_eq!((&plan["dry_run"], &plan["generation"]), (&true.into(), &3.into()), "{plan}");
    assert!(plan["rows"].as_array().unwrap().iter().all(|row| row["fate"] != "carried"), "{plan}");

    // It refuses what the real one would refuse, with the same code and words.
    assert_eq!(cli(&["swap", "--dry-run", "/bin/bad_type"]).code, 4);
    assert_eq!(cli(&["swap", "--dry-run", "/bin/bad_abi"]).code, 1);
    let (dry, real) = (cli(&["swap", "--dry-run", "/bin/bad_flags"]), cli(&["swap", "/bin/bad_flags"]));
    assert_eq!((dry.code, real.code), (4, 4));
    assert!(
        dry.err.contains("SCX_OPS_SWITCH_PARTIAL") && real.err.contains("SCX_OPS_SWITCH_PARTIAL"),
        "{}",
        dry.err
    );
    watch.finish();
    let after = status();
    assert_eq!((after.generation, after.pending, sysfs::enable_seq()), (before.generation, None, seq));
    assert_eq!(after.slots.len(), before.slots.len());
    fresh();
}

#[test]
fn a_binary_tells_what_is_in_it_to_anybody() {
    let info = cli_as_nobody(&["info", V2]);
    assert_eq!(info.code, 0, "{}", info.err);
    for words in [
        "policy        scx_fair 2.0.0\n",
        "task.credit_pct",
        "starts as 100",
        "fair_queue (vtime)",
        "slice_ns: u64 = ",
    ] {
        assert!(info.out.contains(words), "{words:?} is not in: {}", info.out);
    }
    assert!(info.out.lines().all(|line| line.chars().count() <= 80), "{}", info.out);
    let json = json(&["info", "/bin/bad_sleepable"]);
    assert_eq!(json["sleepable"], serde_json::json!(["init_task"]), "{json}");
    let other = cli_as_nobody(&["info", "/bin/bad_abi"]);
    assert!(other.out.contains("999, this program brings"), "{}{}", other.out, other.err);
    assert_eq!(cli_as_nobody(&["info", "/bin/scx-upgrade"]).code, 1);
}

/// The running policy's clock.
fn vtime_now() -> u64 {
    let host = oracle::host();
    let slot = u32::from(host.data.active().slot);
    let columns = &host.registry.layout.scopes[&Scope::Global].columns;
    let clock = columns.iter().find(|c| c.name == "vtime_now" && c.slots.contains(&slot)).unwrap();
    let record = oracle::record(&host, Scope::Global, 0).unwrap();
    u64::from_ne_bytes(record[clock.offset as usize..][..8].try_into().unwrap())
}

#[test]
fn nothing_is_carried_where_that_is_asked_for() {
    fresh();
    let load = load(200);
    report(&["run", V1]);
    let before = load.progress();
    wait_until("the load runs", || load.progress().stuck_since(&before).is_empty());
    let watch = EnabledWatch::start();
    // Virtual time that took so long to pass does not pass again while a command ends.
    std::thread::sleep(Duration::from_secs(15));
    let old = vtime_now();

    let anew = report(&["swap", "--no-carry", V2]);
    let fates: Vec<_> = anew.columns.iter().map(|row| row.fate.as_str()).collect();
    assert!(fates.iter().all(|fate| ["defaulted", "dropped"].contains(fate)), "{:?}", anew.columns);
    let queues: Vec<_> = anew.queues.iter().map(|row| row.fate.as_str()).collect();
    assert_eq!(queues, ["new", "handed over"], "who waits by virtual time does not wait on by the old one");
    let new = vtime_now();
    assert!(new < old, "virtual time began anew: {new} after {old}");
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());

    // What could not be carried is no reason to refuse then.
    assert_eq!(cli(&["swap", "/bin/bad_type"]).code, 4);
    assert_eq!(cli(&["rollback"]).code, 0, "the way back is there all the same");
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    assert_eq!(report(&["swap", V2]).queues[0].fate, "kept");
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn quiet_json_completions_and_pages() {
    fresh();
    let quiet = cli(&["-q", "run", V1]);
    assert_eq!((quiet.code, quiet.out.as_str()), (0, ""), "{}", quiet.err);
    let refused = cli(&["-q", "swap", "/bin/bad_abi"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("host version 999"), "{}", refused.err);
    let error = json(&["swap", "/bin/bad_abi"]);
    assert_eq!(error["error"]["exit_code"], 1);
    let fails = cli(&["-q", "-v", "status"]);
    assert_eq!(fails.code, 2);
    fresh();
    for shell in ["bash", "zsh", "fish"] {
        let script = cli_as_nobody(&["completions", shell]);
        assert!(script.code == 0 && script.out.contains("no-carry"), "{shell}: {}", script.err);
    }
    let page = cli_as_nobody(&["man", "swap"]);
    assert!(page.code == 0 && page.out.contains(".TH") && page.out.contains("no\\-carry"), "{}", page.out);
    assert!(cli_as_nobody(&["man"]).out.contains("Exit codes"));
    assert_eq!(cli_as_nobody(&["man", "nonsense"]).code, 2);
}

#[test]
fn root_without_capabilities_is_told_so() {
    fresh();
    let mut bare = Command::new("/bin/scx-upgrade");
    bare.args(["run", V1]);
    // SAFETY: prctl takes numbers; it is async-signal-safe.
    unsafe {
        bare.pre_exec(|| {
            // Out of the bounding set they are gone after exec, even for root.
            for cap in 0..64 {
                libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0);
            }
            Ok(())
        });
    }
    let ran = command(&mut bare);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.err.contains("lacks CAP_SYS_ADMIN and CAP_PERFMON and CAP_BPF"), "{}", ran.err);
}

/// The kernel ejects the host in the middle: right after the commit, because the policy errs at its first task.
#[test]
fn an_ejection_during_a_command_is_never_a_success() {
    fresh();
    let load = load(50);
    report(&["run", "/bin/ledger_a"]);
    let ejected = |ran: &Ran| {
        assert_eq!(ran.code, 5, "{}{}", ran.out, ran.err);
        assert!(!ran.out.contains("is running"), "{}", ran.out);
        assert!(ran.err.contains("misbehave has had enough"), "{}", ran.err);
        wait_until("the default scheduler is back", || sysfs::state() == "disabled");
    };
    ejected(&cli(&["swap", "/bin/misbehave", "--", "--how", "error"]));
    let is = status();
    assert!(!is.running && is.ejected.is_some_and(|why| why.contains("had enough")));
    let error = json(&["status"]);
    assert_eq!((&error["error"]["exit_code"], &error["running"]), (&5.into(), &false.into()), "{error}");
    assert_eq!(report(&["rollback"]).to, "ledger_a 0.1.0");
    ejected(&cli(&["rollback", "--to", "2"]));
    ejected(&cli(&["recover"]));
    let probation =
        ["swap", "--probation", "5s", "--baseline", "1s", "/bin/misbehave", "--", "--how", "error"];
    assert_eq!(report(&["rollback", "--to", "1"]).to, "ledger_a 0.1.0");
    let taken_back = cli(&probation);
    assert!([5, 7].contains(&taken_back.code), "{}", taken_back.err);
    assert_eq!(taken_back.code == 7, status().running, "{}{}", taken_back.out, taken_back.err);
    // A failure of a command that did nothing says what the kernel runs all the same.
    fresh();
    let started = cli(&["run", "/bin/misbehave", "--", "--how", "error"]);
    assert_eq!(started.code, 5, "{}{}", started.out, started.err);
    load.stop().unwrap();
    fresh();
}

/// A command whose output goes nowhere, or to a full disk.
fn unwritable(args: &[&str], to: impl Fn() -> Stdio) -> Option<i32> {
    let mut command = Command::new(args[0]);
    command.args(&args[1..]).stdin(Stdio::null()).stdout(to()).stderr(to()).status().unwrap().code()
}

fn upgrade<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["/bin/scx-upgrade"], args].concat()
}

#[test]
fn output_that_cannot_be_written_changes_no_exit_code() {
    fresh();
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    // A pipe that nobody reads.
    let broken = || Stdio::from(io::pipe().unwrap().1);
    for (round, to) in [&full as &dyn Fn() -> Stdio, &broken].into_iter().enumerate() {
        assert_eq!(unwritable(&upgrade(&["status"]), to), Some(3));
        assert_eq!(unwritable(&upgrade(&["run", V1]), to), Some(0));
        assert_eq!(unwritable(&upgrade(&["swap", V2]), to), Some(0));
        assert_eq!(unwritable(&upgrade(&["swap", V2]), to), Some(77));
        assert_eq!(unwritable(&upgrade(&["--json", "rollback"]), to), Some(0));
        assert_eq!(unwritable(&upgrade(&["swap", "--nonsense"]), to), Some(2));
        assert_eq!(unwritable(&upgrade(&["--json", "swap", "/bin/bad_type"]), to), Some(4));
        for look in ["status", "list", "history", "doctor"] {
            assert_eq!(unwritable(&upgrade(&[look]), to), Some(0), "{look}, round {round}");
        }
        assert_eq!(status().generation, 3, "round {round}");
        assert_eq!(unwritable(&upgrade(&["stop"]), to), Some(0));
    }
    // Looks that go on end when nobody reads them.
    report(&["run", V1]);
    assert_eq!(unwritable(&upgrade(&["status", "--watch", "--interval", "0.1"]), broken), Some(0));
    // A policy's own process, with statistics that panic where they cannot be printed.
    let mut policy = Command::new("/bin/scx_mini");
    policy.args(["--stats", "1"]).stdin(Stdio::null()).stdout(full()).stderr(full());
    let mut policy = policy.spawn().unwrap();
    wait_until("it took over", || status().generation == 2);
    std::thread::sleep(Duration::from_secs(3));
    assert!(policy.try_wait().unwrap().is_none(), "it goes on");
    report(&["rollback"]);
    assert_eq!(policy.wait().unwrap().code(), Some(0));
    fresh();
}

/// Another file system over that of the pins, until it is dropped.
struct Covered;

impl Covered {
    fn new() -> Covered {
        let bpf = c"bpf".as_ptr();
        // SAFETY: all are NUL-terminated.
        let ret = unsafe { libc::mount(bpf, c"/sys/fs/bpf".as_ptr(), bpf, 0, std::ptr::null()) };
        assert_eq!(ret, 0, "{}", io::Error::last_os_error());
        Covered
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        // SAFETY: it is NUL-terminated.
        unsafe { libc::umount2(c"/sys/fs/bpf".as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_host_whose_pins_are_hidden_is_no_stranger() {
    fresh();
    report(&["run", "/bin/ledger_a"]);
    let (seq, watch) = (sysfs::enable_seq(), EnabledWatch::start());
    let covered = Covered::new();
    let says = |ran: Ran| {
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        let said = format!("{}{}", ran.out, ran.err).split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["a host of scx-upgrade runs (ledger_a 0.1.0, generation 1)", "umount /sys/fs/bpf"] {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
    };
    let looks: [&[&str]; 9] = [
        &["status"],
        &["list"],
        &["doctor"],
        &["run", PLAIN],
        &["run", "--replace", PLAIN],
        &["run", "--replace", "--dry-run", PLAIN],
        &["swap", PLAIN],
        &["rollback"],
        &["stop"],
    ];
    looks.into_iter().for_each(|look| says(cli_exactly(look)));
    let is = status();
    assert!(!is.running && is.hidden.is_some());
    // A policy's own process refuses too.
    says(command(Command::new(PLAIN).arg("--replace")));
    drop(covered);
    watch.finish();
    let is = status();
    assert!(is.running && is.hidden.is_none() && is.generation == 1);
    assert_eq!(sysfs::enable_seq(), seq);
    fresh();
}

/// `scx-upgrade` in a namespace of its own.
fn in_namespace(flag: libc::c_int, group: &Cgroup, args: &[&str]) -> Ran {
    let mut ran = Command::new("/bin/scx-upgrade");
    let procs = std::ffi::CString::new(group.path().join("cgroup.procs").to_str().unwrap()).unwrap();
    // SAFETY: only system calls are made, all of which may be between fork and exec.
    unsafe {
        ran.args(args).pre_exec(move || {
            let write = |path: &std::ffi::CStr, text: &[u8]| {
                let fd = libc::open(path.as_ptr(), libc::O_WRONLY);
                libc::write(fd, text.as_ptr().cast(), text.len());
                libc::close(fd);
            };
            write(&procs, b"0");
            if libc::unshare(flag) != 0 {
                return Err(io::Error::last_os_error());
            }
            match flag {
                libc::CLONE_NEWUSER => write(c"/proc/self/uid_map", b"0 0 1"),
                // The namespace is that of children.
                libc::CLONE_NEWPID => {
                    let pid = libc::fork();
                    if pid > 0 {
                        let mut status = 0;
                        libc::waitpid(pid, &mut status, 0);
                        libc::_exit(libc::WEXITSTATUS(status));
                    }
                }
                _ => {}
            }
            Ok(())
        });
    }
    command(&mut ran)
}

#[test]
fn a_namespace_that_is_in_the_way_is_named_before_anything_is_changed() {
    fresh();
    let group = Cgroup::new("inner");
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    let swap = ["swap", "--again", V2];
    let in_user = in_namespace(libc::CLONE_NEWUSER, &group, &swap);
    assert_eq!(in_user.code, 1, "{}", in_user.err);
    assert!(in_user.err.contains("another user namespace"), "{}", in_user.err);
    assert_eq!((status().generation, status().pending), (1, None));

    let in_cgroup = in_namespace(libc::CLONE_NEWCGROUP, &group, &swap);
    let release = sysfs::release();
    let mut version = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (version.next(), version.next()) < (Some(6), Some(18)) {
        assert_eq!((in_cgroup.code, status().generation), (1, 1), "{}", in_cgroup.err);
        assert!(in_cgroup.err.contains("another cgroup namespace"), "{}", in_cgroup.err);
        report(&["swap", V2]);
    } else {
        assert_eq!(in_cgroup.code, 0, "{}{}", in_cgroup.out, in_cgroup.err);
    }
    assert_eq!((status().generation, status().pending), (2, None));

    // Its policy's process ends with the namespace. The policy does not.
    let in_pid = in_namespace(libc::CLONE_NEWPID, &group, &["swap", "--again", V1]);
    assert_eq!(in_pid.code, 0, "{}{}", in_pid.out, in_pid.err);
    let in_mount = in_namespace(libc::CLONE_NEWNS, &group, &["rollback"]);
    assert_eq!(in_mount.code, 0, "{}{}", in_mount.out, in_mount.err);
    assert_eq!((status().generation, status().pending), (4, None));
    watch.finish();
    fresh();
}

#[test]
fn json_is_one_document_whatever_comes_of_it() {
    fresh();
    let one = |args: &[&str]| {
        let ran = cli_exactly(&[&["--json"], args].concat());
        let document: serde_json::Value = serde_json::from_str(&ran.out)
            .unwrap_or_else(|e| panic!("scx-upgrade {args:?} prints no single document ({e}): {}", ran.out));
        (ran.code, document)
    };
    let (code, status) = one(&["status"]);
    assert_eq!((code, &status["running"], &status["error"]["exit_code"]), (3, &false.into(), &3.into()));
    let (code, usage) = one(&["swap", "--nonsense"]);
    assert_eq!((code, &usage["error"]["exit_code"]), (2, &2.into()));
    report(&["run", V1]);
    let (code, plan) = one(&["plan", "/bin/bad_type"]);
    assert_eq!((code, &plan["error"]["exit_code"]), (4, &4.into()));
    assert!(!plan["refused"].as_array().unwrap().is_empty(), "{plan}");
    for verb in [&["man"] as &[&str], &["completions", "bash"], &["doctor"], &["list"], &["history"]] {
        assert_eq!(one(verb).0, 0, "{verb:?}");
    }
    // How a policy takes over is no argument of its own.
    let (code, same) = one(&["swap", V1, "--", "--stats", "5", "--lock-timeout=7"]);
    assert_eq!((code, &same["error"]["exit_code"]), (77, &77.into()), "{same}");
    let (code, direct) = one(&["swap", "--again", V1, "--", "--direct"]);
    assert_eq!((code, &direct["error"]["exit_code"]), (2, &2.into()), "{direct}");
    fresh();
}

//! `doctor`, and that a verb which meets what it found says the same. What a test cannot take away for good is taken away
//! in a mount namespace of the command's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use e2e::Ran;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::command;
use e2e::fresh;
use e2e::json;
use e2e::kill;
use e2e::report;
use e2e::start_by_hand;
use e2e::status;
use e2e::wait_until;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::doctor::Check;
use scx_upgrade_engine::observe::doctor::Verdict;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";

fn checks(ran: &Ran) -> Vec<Check> {
    let first = ran.out.split("\n]\n").next().unwrap_or_default();
    serde_json::from_str(&format!("{first}\n]")).unwrap_or_else(|e| panic!("{e}: {}{}", ran.out, ran.err))
}

fn blocks(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|c| c.verdict == Verdict::Blocks).collect()
}

#[test]
fn all_is_well() {
    fresh();
    for running in [false, true] {
        if running {
            report(&["run", V1]);
        }
        let ran = cli(&["doctor"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
        let checks: Vec<Check> = serde_json::from_value(json(&["doctor"])).unwrap();
        let names: Vec<_> = checks.iter().map(|c| c.name.as_str()).collect();
        for name in [
            "rights",
            "kernel",
            "sched_ext",
            "BTF",
            "struct_ops",
            "kfuncs",
            "isolated CPUs",
            "bandwidth",
            "namespaces",
            "memory",
            "cgroups",
            "core sched.",
            "known traps",
            "read once",
            "bpffs",
            "CPUs",
            "pins",
            "history",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        assert!(checks.iter().all(|c| c.verdict == Verdict::Ok), "{}", ran.out);
        assert_eq!(ran.out.contains("generation 1 runs, scx_fair 1.0.0"), running, "{}", ran.out);
    }
    fresh();
}

#[test]
fn another_scheduler_is_found() {
    fresh();
    let mut other = start_by_hand(V1, &["--direct"]);
    let ran = cli(&["--json", "doctor"]);
    assert_eq!(ran.code, 1);
    let checks = checks(&ran);
    let found = blocks(&checks);
    assert_eq!(found.len(), 1, "{}", ran.out);
    assert_eq!(found[0].name, "scheduler");
    assert!(
        found[0].found.contains("scx_fair") && found[0].found.contains("stop it first"),
        "{}",
        found[0].found
    );
    for args in [["run", V2].as_slice(), &["swap", V2], &["run", "--dry-run", V2]] {
        assert_eq!(cli(args).err.trim_end(), format!("error: {}", found[0].found), "{args:?}");
    }
    kill(other.id() as i32, libc::SIGINT);
    assert!(other.wait().unwrap().success());
    wait_until("it is detached", || sysfs::state() == "disabled");
    assert_eq!(cli(&["doctor"]).code, 0);
}

#[test]
fn an_ejected_host_and_a_cut_off_start_are_found() {
    fresh();
    report(&["run", V1]);
    fs::write("/proc/sysrq-trigger", "S").unwrap();
    wait_until("the kernel took it off", || sysfs::state() == "disabled");
    let ran = cli(&["--json", "doctor"]);
    assert_eq!(ran.code, 1);
    let checks = checks(&ran);
    let found = blocks(&checks);
    assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["pins"], "{}", ran.out);
    assert!(found[0].found.contains("the host was taken off by the kernel"), "{}", found[0].found);
    fresh();
}

#[test]
fn an_ordinary_user_is_told_what_root_would_see() {
    fresh();
    let ran = cli_as_nobody(&["doctor"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with("blocks   rights") && ran.out.contains("needs root"), "{}", ran.out);
    assert!(ran.out.contains("ok       BTF") && ran.out.contains("unknown  pins"), "{}", ran.out);
}

/// What is done to the mounts that a command sees.
enum Change<'a> {
    Unmount(&'a str),
    /// A folder of these files, with their texts, over another folder.
    Over(&'a str, &'a [(&'a str, &'a [u8])]),
}

/// Run `scx-upgrade` where the mounts are so. The scheduler, and all the other processes, see theirs as ever.
fn cli_where(change: &Change<'_>, args: &[&str]) -> Ran {
    const STAGE: &str = "/tmp/stage";
    let _ = fs::remove_dir_all(STAGE);
    fs::create_dir(STAGE).unwrap();
    let (stage, target) = match change {
        Change::Unmount(target) => (None, *target),
        Change::Over(target, files) => {
            files.iter().for_each(|(name, text)| fs::write(format!("{STAGE}/{name}"), text).unwrap());
            (Some(CString::new(STAGE).unwrap()), *target)
        }
    };
    let target = CString::new(target).unwrap();
    let mut run = Command::new("/bin/scx-upgrade");
    run.args(args);
    // SAFETY: the closure makes system calls only, with strings that it owns.
    unsafe { run.pre_exec(move || in_own_mounts(stage.as_deref(), &target)) };
    command(&mut run)
}

fn in_own_mounts(stage: Option<&CStr>, target: &CStr) -> io::Result<()> {
    let check = |done| if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: all strings are NUL-terminated, and what is null may be.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        match stage {
            Some(stage) => {
                check(libc::mount(stage.as_ptr(), target.as_ptr(), none, libc::MS_BIND, none.cast()))
            }
            None => check(libc::umount2(target.as_ptr(), libc::MNT_DETACH)),
        }
    }
}

/// `doctor` finds it, by this name and in these words, and each verb says the same; what runs does not notice.
fn is_found(change: &Change<'_>, name: &str, words: &[&str], verbs: &[&[&str]]) {
    let ran = cli_where(change, &["--json", "doctor"]);
    assert_eq!(ran.code, 1, "{name}: {}{}", ran.out, ran.err);
    let checks = checks(&ran);
    let found = blocks(&checks);
    assert_eq!(found[0].name, name, "{}", ran.out);
    for words in words {
        assert!(found[0].found.contains(words), "{words:?} is not in: {}", found[0].found);
    }
    for args in verbs {
        let said = cli_where(change, args);
        assert_eq!(said.code, 1, "{name}: {args:?}: {}", said.out);
        assert_eq!(said.err.trim_end(), format!("error: {}", found[0].found), "{args:?}");
    }
}

#[test]
fn what_is_missing_is_found_and_every_verb_says_the_same() {
    fresh();
    let run: &[&str] = &["run", V1];
    let any: &[&[&str]] = &[run, &["swap", V1], &["rollback"], &["stop"], &["status"], &["list"]];
    let starts: &[&[&str]] = &[run, &["run", "--dry-run", V1]];
    is_found(&Change::Unmount("/sys/fs/bpf"), "bpffs", &["is not a BPF file system", "mount -t bpf"], any);
    is_found(&Change::Over("/sys/kernel/sched_ext", &[]), "sched_ext", &["CONFIG_SCHED_CLASS_EXT=y"], any);
    is_found(
        &Change::Over("/sys/kernel/btf", &[]),
        "BTF",
        &["has no BTF", "CONFIG_DEBUG_INFO_BTF=y"],
        starts,
    );
    let garbage: &[(&str, &[u8])] = &[("vmlinux", &[7; 4096])];
    is_found(&Change::Over("/sys/kernel/btf", garbage), "BTF", &["cannot read BTF"], starts);
    assert_eq!(sysfs::state(), "disabled");

    // The same under a running policy: it goes on, and can be taken back by whoever sees all.
    report(&["run", V1]);
    report(&["swap", V2]);
    is_found(&Change::Unmount("/sys/fs/bpf"), "bpffs", &["is not a BPF file system"], any);
    is_found(&Change::Over("/sys/kernel/btf", &[]), "BTF", &["has no BTF"], &[&["swap", "/bin/plain"]]);
    assert_eq!(status().generation, 2);
    report(&["rollback"]);
    fresh();
}

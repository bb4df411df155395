//! The history: what it has of each command, and that nothing about it is in a scheduler's way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use e2e::EnabledWatch;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::command;
use e2e::fresh;
use e2e::json;
use e2e::report;
use e2e::status;
use serde_json::Value;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const FOLDER: &str = "/var/lib/scx-upgrade";
const FILE: &str = "/var/lib/scx-upgrade/history";

/// Begin without a history.
fn forget() {
    let path = Path::new(FOLDER);
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn entries() -> Vec<Value> {
    json(&["history", "-n", "1000"])["entries"].as_array().unwrap().clone()
}

/// Something mounted over the history's folder, until it is dropped.
struct Mounted;

impl Mounted {
    fn tmpfs(options: &str) -> Mounted {
        fs::create_dir_all(FOLDER).unwrap();
        let [kind, target, options] = ["tmpfs", FOLDER, options].map(|s| CString::new(s).unwrap());
        // SAFETY: all strings are NUL-terminated.
        let done =
            unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(done, 0, "cannot mount: {}", std::io::Error::last_os_error());
        Mounted
    }

    fn read_only() -> Mounted {
        let mounted = Mounted::tmpfs("mode=700");
        let target = CString::new(FOLDER).unwrap();
        let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
        // SAFETY: the string is NUL-terminated, and what is null may be.
        let done = unsafe {
            libc::mount(std::ptr::null(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        };
        assert_eq!(done, 0, "cannot remount: {}", std::io::Error::last_os_error());
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let target = CString::new(FOLDER).unwrap();
        // SAFETY: the string is NUL-terminated.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn each_command_leaves_an_entry() {
    fresh();
    forget();
    assert!(cli(&["history"]).out.contains("nothing was done yet"));
    report(&["run", V1, "--", "--slice-us", "3000"]);
    let mut swap = Command::new("/bin/scx-upgrade");
    assert_eq!(command(swap.args(["swap", V2]).env("SUDO_USER", "ada")).code, 0);
    assert_eq!(cli(&["swap", "/bin/bad_verify"]).code, 1);
    report(&["rollback"]);
    assert_eq!(cli(&["stop"]).code, 0);

    let entries = entries();
    let of = |key: &str| entries.iter().map(|e| e[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("verb"), ["run", "swap", "swap", "rollback", "stop"]);
    assert_eq!(of("outcome"), ["done", "done", "failed", "done", "done"]);
    assert_eq!(of("generation"), [1.into(), 2.into(), Value::Null, 3.into(), Value::Null]);
    let [run, swap, failed, rollback, stop] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&run["policy"], &run["version"]), (&"scx_fair".into(), &"1.0.0".into()));
    assert_eq!(run["args"], serde_json::json!(["--slice-us", "3000"]));
    assert_eq!(run["binary"]["path"], V1);
    assert_eq!(run["binary"], json(&["info", V1])["binary"], "path, hash and build id");
    assert_eq!(run["by"]["uid"], 0);
    assert_eq!((&swap["by"]["sudo_user"], &swap["from"]), (&"ada".into(), &"scx_fair 1.0.0".into()));
    assert!(
        swap["plan"]["carried"].as_u64().unwrap() > 0 && swap["timings"]["commit_ns"].as_u64().unwrap() > 0
    );
    assert!(failed["message"].as_str().unwrap().contains("bad_verify does not load"));
    assert_eq!(failed["binary"]["path"], "/bin/bad_verify");
    assert_eq!(rollback["binary"]["path"], V1, "what runs after it");
    assert_eq!(stop["from"], "scx_fair 1.0.0");

    let text = cli(&["history"]);
    assert_eq!(text.out.lines().count(), 6, "{}", text.out);
    assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
    assert_eq!(cli(&["history", "-n", "2"]).out.lines().count(), 3);
    let long = cli(&["history", "--long"]).out;
    assert!(
        long.contains("arguments   --slice-us 3000\n") && long.contains("by          ada, uid 0"),
        "{long}"
    );
    assert_eq!(fs::metadata(FOLDER).unwrap().mode() & 0o777, 0o700);
    let nobody = cli_as_nobody(&["history"]);
    assert!(nobody.err.contains("cannot be read"), "{}", nobody.err);
}

#[test]
fn what_the_file_lacks_the_registry_has() {
    fresh();
    forget();
    report(&["run", V1]);
    report(&["swap", V2]);
    fs::remove_file(FILE).unwrap();
    report(&["rollback"]);
    let ran = cli(&["history"]);
    assert!(ran.err.contains("2 commits are in the host's registry only"), "{}", ran.err);
    let numbers: Vec<_> = entries().iter().map(|e| e["generation"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    fresh();
}

/// The swap is done, the exit code is 0, and a warning says what is wrong.
fn is_a_warning(what: &str, words: &str) {
    let before = status().generation;
    for args in [["swap", V2].as_slice(), &["rollback"]] {
        let ran = cli(args);
        assert_eq!(ran.code, 0, "{what}: {args:?}: {}", ran.err);
        assert!(ran.err.contains("warning: the history has no entry of this"), "{what}: {}", ran.err);
        assert!(ran.err.contains(words), "{what}: {}", ran.err);
    }
    let done = report(&["rollback"]);
    assert_eq!(done.warnings.len(), 1, "{what}: {:?}", done.warnings);
    assert_eq!(status().generation, before + 3, "{what}");
    assert_eq!(cli(&["history"]).code, 0, "{what}");
    let doctor = cli(&["doctor"]);
    assert_eq!(doctor.code, 0, "{what}: {}", doctor.out);
    assert!(doctor.out.contains("note     history"), "{what}: {}", doctor.out);
}

#[test]
fn nothing_that_is_wrong_with_it_blocks_a_swap() {
    fresh();
    forget();
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    {
        let _full = Mounted::tmpfs("mode=700,size=64k");
        // As much as there is room for.
        let _ = fs::write(Path::new(FOLDER).join("ballast"), vec![0; 128 * 1024]);
        is_a_warning("a full disk", "No space left");
    }
    {
        let _read_only = Mounted::read_only();
        is_a_warning("a read-only disk", "Read-only file system");
    }
    forget();
    symlink("/tmp", FOLDER).unwrap();
    is_a_warning("a link in the folder's place", "is a link");
    assert!(!Path::new("/tmp/history").exists());
    forget();
    fs::create_dir_all(FOLDER).unwrap();
    symlink("/tmp/elsewhere", FILE).unwrap();
    is_a_warning("a link in the file's place", "is a link");
    assert!(!Path::new("/tmp/elsewhere").exists());
    fs::remove_file(FILE).unwrap();
    fs::create_dir(FILE).unwrap();
    is_a_warning("a folder in the file's place", "is no plain file");
    fs::remove_dir(FILE).unwrap();
    let fifo = CString::new(FILE).unwrap();
    // SAFETY: the string is NUL-terminated.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    is_a_warning("a pipe in the file's place", "is no plain file");
    fs::remove_file(FILE).unwrap();

    // A damaged file is gone on with, behind what is damaged.
    report(&["rollback"]);
    let mut bytes = fs::read(FILE).unwrap();
    bytes.truncate(bytes.len() - 30);
    bytes.extend([0xff; 700]);
    fs::write(FILE, bytes).unwrap();
    assert_eq!(cli(&["rollback"]).err, "");
    let ran = cli(&["history"]);
    assert!(ran.err.contains("1 lines of the history are damaged"), "{}", ran.err);
    watch.finish();
    fresh();
}

//! `status --watch`, on a terminal and elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::process::Stdio;

use e2e::cli;
use e2e::fresh;
use e2e::load;
use e2e::report;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";

#[test]
fn elsewhere_it_is_a_block_each_time() {
    fresh();
    assert_eq!(cli(&["status", "--watch", "--count", "1"]).code, 3);
    let load = load(100);
    report(&["run", V1]);
    report(&["swap", V2]);
    let ran = cli(&["status", "--watch", "--count", "3", "--interval", "0.5"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out.matches("  running   scx_fair 2.0.0, generation 2, for ").count(), 3, "{}", ran.out);
    assert_eq!(
        ran.out.matches("  back to   scx_fair 1.0.0, generation 1: rollback\n").count(),
        3,
        "{}",
        ran.out
    );
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);

    let ran = cli(&["--json", "status", "--watch", "--count", "2", "--interval", "2"]);
    let looks: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(looks.len(), 2, "{}", ran.out);
    let rate = |look: usize, name: &str| {
        let rates = looks[look]["rates"].as_array().unwrap();
        rates.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", ran.out)).clone()
    };
    assert!(
        rate(0, "context switches")["per_second"].is_null(),
        "there is nothing to compare the first with"
    );
    assert!(rate(1, "context switches")["per_second"].as_f64().unwrap() > 0.0);
    // What the policy counts in its own globals, read without its process.
    let count = |look, name| rate(look, name)["total"].as_u64().unwrap();
    let all = |look| count(look, "nr_direct") + count(look, "nr_queued");
    assert!(all(1) > all(0) && all(0) > 0, "{}", ran.out);
    load.stop().unwrap();
    fresh();
}

/// A pair of terminal ends, of 80 columns and 24 lines.
fn terminal() -> (File, OwnedFd) {
    let _ = std::fs::create_dir_all("/dev/pts");
    // Where there is one already, this is one more, which no one minds.
    // SAFETY: all strings are NUL-terminated.
    unsafe {
        libc::mount(
            c"devpts".as_ptr(),
            c"/dev/pts".as_ptr(),
            c"devpts".as_ptr(),
            0,
            c"ptmxmode=666".as_ptr().cast(),
        )
    };
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors have room, what is null may be, and the size outlives the call.
    let done =
        unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(done, 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: the call just gave us both, and nobody else has them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

#[test]
fn on_a_terminal_it_is_drawn_until_q() {
    fresh();
    report(&["run", V1]);
    let (mut ours, theirs) = terminal();
    let mut watch = Command::new("/bin/scx-upgrade")
        .args(["status", "--watch", "--interval", "0.5"])
        .env("TERM", "xterm")
        .stdin(Stdio::from(theirs.try_clone().unwrap()))
        .stdout(Stdio::from(theirs.try_clone().unwrap()))
        .stderr(Stdio::from(theirs))
        .spawn()
        .unwrap();
    let (mut seen, mut bytes) = (String::new(), [0; 4096]);
    // Word by word: a blank that is there already is not drawn.
    while !seen.contains("quit") {
        let n = ours.read(&mut bytes).unwrap();
        assert!(n > 0, "it ended: {seen}");
        seen += &String::from_utf8_lossy(&bytes[..n]);
    }
    for word in ["scx_fair", "1.0.0", "generation", "switches"] {
        assert!(seen.contains(word), "{word} is not in: {seen}");
    }
    ours.write_all(b"q").unwrap();
    // Its last words, up to its end of the terminal being closed, so that it does not wait for a reader.
    while ours.read(&mut bytes).is_ok_and(|n| n > 0) {}
    assert!(watch.wait().unwrap().success());
    fresh();
}

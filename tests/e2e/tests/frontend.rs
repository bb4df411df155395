//! The user-space half of a policy misbehaves: the scheduler does not depend on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use e2e::EnabledWatch;
use e2e::PINS;
use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::pids;
use e2e::report;
use e2e::status;
use e2e::wait_until;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::query::MapInfoIter;

const GOOD: &str = "/bin/ledger_a";
const BAD: &str = "/bin/misbehave";
const LOG: &str = "/run/scx-upgrade/misbehave.log";

#[test]
fn a_half_that_ends_hangs_or_prints_for_ever_takes_nothing_along() {
    fresh();
    let load = load(50);
    report(&["run", GOOD]);
    let watch = EnabledWatch::start();
    for half in ["exit", "hang", "print"] {
        let generation = report(&["swap", BAD, "--", "--stats", "1", "--half", half]).generation;
        match half {
            "exit" => wait_until("it is gone", || pids("misbehave").is_empty()),
            // The kernel ends it when its log is as long as it may be.
            "print" => wait_until("it is gone", || pids("misbehave").is_empty()),
            _ => assert_eq!(pids("misbehave").len(), 1),
        }
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
        let now = status();
        assert_eq!((now.state.as_str(), now.generation), ("enabled", generation), "{half}");
        let said = cli(&["status"]).out;
        let line = said.lines().find(|line| line.contains("running")).unwrap();
        assert_eq!(line.contains("no process"), half != "hang", "{half}: {said}");
        // There and back, with nobody to answer.
        report(&["swap", GOOD]);
        report(&["rollback"]);
        report(&["rollback"]);
        pids("misbehave").into_iter().for_each(|pid| kill(pid, libc::SIGKILL));
    }
    assert!(fs::metadata(LOG).unwrap().len() <= 64 << 20, "the log is bounded");
    watch.finish();
    load.stop().unwrap();
    fresh();
}

const TICKING: &str = "/bin/ticking";
/// The map of its timer.
const CLOCK: &str = "ticking_clock";

/// Pins of that map.
fn clocks() -> Vec<PathBuf> {
    let pins = fs::read_dir(PINS).unwrap().map(|entry| entry.unwrap().path());
    pins.filter(|path| path.to_string_lossy().ends_with(CLOCK)).collect()
}

/// Does the kernel have that map?
fn has_clock() -> bool {
    MapInfoIter::default().any(|map| map.name.to_string_lossy() == CLOCK)
}

#[test]
fn a_timer_of_its_own_goes_on_without_the_process_and_while_another_policy_runs() {
    fresh();
    report(&["run", TICKING]);
    let watch = EnabledWatch::start();
    wait_until("its map is pinned", || clocks().len() == 1);
    let clock = MapHandle::from_pinned_path(&clocks()[0]).unwrap();
    let rings = || {
        let value = clock.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        u64::from_ne_bytes(value[..8].try_into().unwrap())
    };
    let goes_on = |what: &str| {
        let before = rings();
        wait_until(what, || rings() > before + 20);
    };
    goes_on("it rings");
    pids("ticking").into_iter().for_each(|pid| kill(pid, libc::SIGKILL));
    wait_until("its process is gone", || pids("ticking").is_empty());
    goes_on("it rings without its process");
    report(&["swap", GOOD]);
    goes_on("it rings while another policy runs");
    report(&["rollback"]);
    goes_on("it rings when it is back");

    // What holds the map is the pin alone, and that goes when the slot is given away.
    drop(clock);
    for other in [GOOD, "/bin/plain", "/bin/bare", "/bin/scx_mini", GOOD] {
        assert!(has_clock() || clocks().is_empty());
        report(&["swap", other]);
    }
    assert_eq!(clocks(), Vec::<PathBuf>::new());
    wait_until("the kernel has freed the map", || !has_clock());
    watch.finish();
    fresh();
}

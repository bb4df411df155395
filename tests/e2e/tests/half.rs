//! The user-space half of a policy misbehaves: the scheduler does not depend on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::pids;
use e2e::report;
use e2e::status;
use e2e::wait_until;

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

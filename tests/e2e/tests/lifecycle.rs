//! A policy's life: run, swap, rollback, stop, and what becomes of its process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use e2e::EnabledWatch;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::command;
use e2e::fresh;
use e2e::kill;
use e2e::link_is_pinned;
use e2e::load;
use e2e::pids;
use e2e::report;
use e2e::rounds;
use e2e::start_by_hand;
use e2e::status;
use e2e::wait_until;
use guest::load::Kind;
use libbpf_rs::query::ProgInfoIter;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::report::Report;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";

fn fate<'a>(report: &'a Report, column: &str) -> Vec<&'a str> {
    report.columns.iter().filter(|c| c.column == column).map(|c| c.fate.as_str()).collect()
}

#[test]
fn run_swap_rollback_stop() {
    fresh();
    let load = load(300);
    let run = report(&["run", V1]);
    assert_eq!((run.generation, run.to.as_str(), run.from.as_deref()), (1, "scx_fair 1.0.0", None));
    let watch = EnabledWatch::start();

    let swap = report(&["swap", V2]);
    assert_eq!((swap.generation, swap.to.as_str()), (2, "scx_fair 2.0.0"));
    assert_eq!(swap.from.as_deref(), Some("scx_fair 1.0.0"));
    assert_eq!(fate(&swap, "vtime"), ["carried"]);
    assert_eq!(fate(&swap, "vtime_now"), ["carried"]);
    assert_eq!(fate(&swap, "credit_pct"), ["defaulted"]);
    assert_eq!(fate(&swap, "recent_us"), ["defaulted"]);
    assert_eq!(fate(&swap, "nr_runs"), ["dropped"]);
    let swept = swap.swept("task").expect("new columns are swept");
    assert!(swept.visited >= 300, "the sweep saw {} tasks", swept.visited);
    assert_eq!(swept.missing, 0);

    let before = load.progress();
    let rollback = report(&["rollback"]);
    assert_eq!((rollback.generation, rollback.to.as_str()), (3, "scx_fair 1.0.0"));
    assert_eq!(rollback.timings.load_ns, 0, "a rollback loads nothing");
    assert_eq!(rollback.timings.sweep_ns, 0, "a rollback to retained columns sweeps nothing");
    let forth = report(&["rollback"]);
    assert_eq!(forth.to, "scx_fair 2.0.0", "rolling back twice goes forth again");

    let status = status();
    assert!(status.running);
    assert_eq!((status.generation, status.generations.len(), status.pending), (4, 4, None));
    assert_eq!(status.slots.iter().filter(|s| s.active).count(), 1);
    assert_eq!(status.queues.len(), 1, "both versions name the same queue");
    wait_until("every kind of load advances under the policy", || {
        load.progress().stuck_since(&before).is_empty()
    });
    assert!(load.ops(Kind::Fork) > 0);

    watch.finish();
    load.stop().unwrap();
    assert_eq!(cli(&["stop"]).code, 0);
    assert_eq!(sysfs::state(), "disabled");
    assert_eq!(cli(&["status"]).code, 3);
    assert_eq!(cli(&["stop"]).code, 3, "there is nothing left to stop");
}

#[test]
fn the_scheduler_outlives_every_process() {
    fresh();
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    for pid in pids("scx_fair_v1") {
        kill(pid, libc::SIGKILL);
    }
    wait_until("the process is gone", || pids("scx_fair_v1").is_empty());
    assert!(link_is_pinned());
    // It still schedules, and can still be replaced and taken back to, with no process of it.
    let load = load(200);
    let before = load.progress();
    wait_until("the load advances", || load.progress().stuck_since(&before).is_empty());
    report(&["swap", V2]);
    assert_eq!(report(&["rollback"]).to, "scx_fair 1.0.0");
    let before = load.progress();
    wait_until("the load advances", || load.progress().stuck_since(&before).is_empty());
    watch.finish();
    fresh();
}

#[test]
fn a_policy_started_by_hand_takes_over_and_ends_when_superseded() {
    fresh();
    let mut first = start_by_hand(V1, &[]);
    wait_until("the first is generation 1", || status().generation == 1);
    let watch = EnabledWatch::start();
    let mut second = start_by_hand(V2, &["--slice-us", "3000"]);
    wait_until("the second took over", || status().generation == 2);
    assert!(first.wait().unwrap().success(), "the superseded process ends cleanly");

    // Ctrl-C ends the process, not the scheduler.
    kill(second.id() as i32, libc::SIGINT);
    assert!(second.wait().unwrap().success());
    assert_eq!(sysfs::state(), "enabled");
    watch.finish();
    fresh();
}

#[test]
fn directly_attached_it_is_a_plain_scheduler() {
    fresh();
    for binary in [V1, V2] {
        let mut direct = start_by_hand(binary, &["--direct"]);
        assert!(sysfs::ops().starts_with("scx_fair"), "the kernel sees {}", sysfs::ops());
        let load = load(100);
        let before = load.progress();
        wait_until("the load advances", || load.progress().stuck_since(&before).is_empty());
        // The host will not push it out.
        let refused = cli(&["run", V1]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        assert!(refused.err.contains("another sched_ext scheduler is running"), "{}", refused.err);
        kill(direct.id() as i32, libc::SIGINT);
        assert!(direct.wait().unwrap().success());
        wait_until("it is detached", || sysfs::state() == "disabled");
    }
}

/// What the verifier follows in one program, of the kernel's limit of a million: a load takes as long as that, and some
/// kernels follow each combination of branches where others see that it does not matter.
#[test]
fn the_verifier_has_little_to_follow() {
    const MOST: u32 = 10_000;
    fresh();
    report(&["run", V1]);
    let programs: Vec<_> =
        ProgInfoIter::default().map(|p| (p.verified_insns, p.name.to_string_lossy().into_owned())).collect();
    // Shown also where all is well: docs/cost.md has it.
    let _ = writeln!(std::io::stderr(), "{:?} of {} programs", programs.iter().max(), programs.len());
    // The kernel keeps 15 characters of a name.
    for name in ["scxu_sweep_task", "host_dispatch", "fair_running"] {
        assert!(programs.iter().any(|(_, n)| n == name), "no {name}: {programs:?}");
    }
    let many: Vec<_> = programs.iter().filter(|(followed, _)| *followed > MOST).collect();
    assert!(many.is_empty(), "{many:?}");
    fresh();
}

#[test]
fn tasks_on_a_queue_that_the_successor_does_not_name_are_handed_over() {
    fresh();
    let load = load(400);
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    for (binary, queue) in [("/bin/plain", "plain_queue"), (V2, "fair_queue"), ("/bin/plain", "plain_queue")]
    {
        report(&["swap", binary]);
        let now = status();
        let slot = now.slots.iter().find(|s| s.active).unwrap().slot;
        let queue = now.queues.iter().find(|q| q.name == queue).expect("its queue stands");
        assert!(queue.slots.contains(&u32::from(slot)));
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    }
    // Whoever waits on the old queue at the commit may be the very task that the grace period needs.
    for _ in 0..rounds(10) {
        report(&["rollback"]);
        report(&["swap", V2]);
        report(&["rollback"]);
        report(&["swap", "/bin/plain"]);
    }
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    // Longer than a lost task may wait would be the watchdog's 30 s; the load tells sooner.
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        load.progress().overdue_ns() < 20_000_000_000,
        "a task waits for {} ns",
        load.progress().overdue_ns()
    );
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_policy_of_two_sources_swaps_in_and_out() {
    fresh();
    let load = load(100);
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    assert_eq!(report(&["swap", "/bin/two"]).to.split(' ').next(), Some("two"));
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    report(&["rollback"]);
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_plan_tells_beforehand_and_changes_nothing() {
    fresh();
    report(&["run", V1]);
    let plan = cli(&["plan", V2]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    for words in
        ["carried    task.vtime", "defaulted  task.credit_pct", "dropped    task.nr_runs", "264 bytes"]
    {
        assert!(plan.out.contains(words), "{words:?} is not in: {}", plan.out);
    }
    let refused = cli(&["plan", "/bin/bad_type"]);
    assert_eq!(refused.code, 4, "{}", refused.out);
    assert!(refused.out.contains("refused    task.vtime"), "{}", refused.out);
    assert_eq!(status().slots.len(), 1);
    fresh();

    // The same between two binaries, for anybody, with nothing running.
    let check = cli_as_nobody(&["check", V1, V2]);
    assert_eq!(check.code, 0, "{}", check.err);
    assert!(check.out.contains("carried    task.vtime"), "{}", check.out);
    assert_eq!(cli_as_nobody(&["check", V1, "/bin/bad_type"]).code, 4);
}

#[test]
fn help_is_there_without_a_kernel_to_ask() {
    for args in [["--help"].as_slice(), &["swap", "--help"], &["--version"]] {
        assert_eq!(cli(args).code, 0);
    }
    assert_eq!(cli(&["swap"]).code, 2, "a missing argument is wrong usage");
    assert_eq!(command(Command::new(V2).arg("--version")).code, 0);
}

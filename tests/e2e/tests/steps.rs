//! SIGKILL at each named step of a swap and of a rollback, at system calls spread over all of the step: whatever is killed
//! when, a policy runs, the old or the new one, and the next command brings everything in order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use e2e::EnabledWatch;
use e2e::Objects;
use e2e::cli;
use e2e::fresh;
use e2e::load;
use e2e::objects;
use e2e::pids;
use e2e::report;
use e2e::rounds;
use e2e::status;
use e2e::trace;
use e2e::trace::Place;
use e2e::trace::Traced;
use e2e::wait_until;
use guest::load::Load;

/// The second makes other columns of the first's, and the way back makes those again: there is something to sweep.
const FIRST: &str = "/bin/sweep_1";
const SECOND: &str = "/bin/sweep_2";
/// In the order in which they come, as the program calls them.
const SWAP: [&str; 9] =
    ["open", "plan", "load", "prepare", "commit", "settle", "sweep", "hand over", "close"];
const ROLLBACK: [&str; 7] = ["plan", "prepare", "commit", "settle", "sweep", "hand over", "close"];
/// How often it is killed in each step: `SCX_UPGRADE_KILLS`, or this.
const KILLS: u32 = 4;

fn kills() -> usize {
    let told = std::env::var("SCX_UPGRADE_KILLS").ok().and_then(|kills| kills.parse().ok());
    told.unwrap_or_else(|| rounds(KILLS) as usize)
}

fn swap(place: Option<Place<'_>>) -> Traced {
    let mut command = Command::new("/bin/scx-upgrade");
    command.args(["-v", "swap", "--again", SECOND]);
    run(command, place)
}

fn roll_back(place: Option<Place<'_>>) -> Traced {
    let mut command = Command::new("/bin/scx-upgrade");
    command.args(["-v", "rollback"]);
    run(command, place)
}

fn run(mut command: Command, place: Option<Place<'_>>) -> Traced {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    trace::run(&mut command, place).unwrap()
}

/// The system calls in which to kill, `kills` of `calls`, the first and the last among them.
fn spread(calls: usize, kills: usize) -> impl Iterator<Item = usize> {
    (0..kills).map(move |n| n * calls.saturating_sub(1) / kills.saturating_sub(1).max(1))
}

/// After a kill: the generation is the one before or the next, one policy runs, and the next command repairs.
fn check(load: &Load, from: &str, before: u32, what: &str, n: usize) -> bool {
    let now = status();
    assert_eq!(now.state, "enabled", "{what}");
    let committed = now.generation - before;
    assert!(committed <= 1, "{what}: {committed} commits");
    assert_eq!(now.slots.iter().filter(|slot| slot.active).count(), 1, "{what}");
    let progress = load.progress();
    let next = match n % 3 {
        0 => cli(&["rollback"]),
        1 => cli(&["recover"]),
        // Another load of the second would in time push the first out, which is what is rolled back to.
        _ if from == SECOND => cli(&["recover"]),
        _ => cli(&["swap", SECOND]),
    };
    assert_eq!(next.code, 0, "{what}: {}{}", next.out, next.err);
    assert_eq!(status().pending, None, "{what}");
    wait_until("every kind advances", || load.progress().stuck_since(&progress).is_empty());
    committed == 1
}

/// Kill in each step, each time while `from` runs, and say what was found.
fn kill_in_each(
    load: &Load,
    from: &str,
    steps: &[&str],
    calls: &BTreeMap<String, usize>,
    mut start: impl FnMut(Option<Place<'_>>) -> Traced,
) {
    let mut n = 0;
    for step in steps {
        let (mut killed, mut committed) = (0, 0);
        for call in spread(calls[*step], kills()) {
            bring(from);
            let before = status().generation;
            // The last calls of a step are not always made: some wait for something.
            killed += usize::from(start(Some(Place { step, call })).killed);
            committed += usize::from(check(load, from, before, &format!("{step}, call {call}"), n));
            n += 1;
        }
        let _ = writeln!(
            std::io::stderr(),
            "{step}: {} calls, killed {killed} times, {committed} committed",
            calls[*step]
        );
        assert!(killed > 0, "never killed in {step}");
        match *step {
            "open" | "plan" | "load" | "prepare" => {
                assert_eq!(committed, kills() - killed, "{step}: no commit before its time")
            }
            "settle" | "sweep" | "hand over" | "close" => {
                assert_eq!(committed, kills(), "{step}: a commit was lost")
            }
            _ => {}
        }
    }
}

fn runs() -> String {
    let status = status();
    let running = status.slots.iter().find(|slot| slot.active).unwrap();
    format!("/bin/{}", running.policy)
}

/// Make one of the two run again, by going back to it: there is no other way from the second to the first.
fn bring(policy: &str) {
    if runs() != policy {
        report(&["rollback"]);
    }
    if runs() != policy {
        // Back was to another load of the second.
        assert_eq!(policy, FIRST);
        let status = status();
        let first = status.generations.iter().rfind(|g| FIRST.ends_with(&g.policy)).unwrap();
        report(&["rollback", "--to", &first.number.to_string()]);
    }
    assert_eq!(runs(), policy);
}

/// Bring every slot to what it holds when the second was swapped in often, and let the first run; what the kernel holds then.
fn fill_slots() -> Objects {
    bring(FIRST);
    for _ in 0..3 {
        report(&["swap", SECOND]);
    }
    bring(FIRST);
    wait_until("superseded processes end", || pids("sweep_2").is_empty());
    let mut held = objects();
    wait_until("the kernel has freed what it can", || {
        let before = std::mem::replace(&mut held, objects());
        held == before
    });
    held
}

#[test]
fn a_swap_can_be_killed_at_each_step() {
    fresh();
    let load = load(100);
    report(&["run", FIRST]);
    let held = fill_slots();
    let watch = EnabledWatch::start();
    // How many calls each step has.
    let dry = swap(None);
    report(&["rollback"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(SWAP.iter().all(|step| dry.calls.contains_key(*step)), "{:?}", dry.calls);
    kill_in_each(&load, FIRST, &SWAP, &dry.calls, swap);
    watch.finish();
    let left = fill_slots();
    assert!(left <= held && left.pins == held.pins, "{left:?}, before {held:?}");
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_rollback_can_be_killed_at_each_step() {
    fresh();
    let load = load(100);
    report(&["run", FIRST]);
    let held = fill_slots();
    bring(SECOND);
    let watch = EnabledWatch::start();
    let dry = roll_back(None);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(ROLLBACK.iter().all(|step| dry.calls.contains_key(*step)), "{:?}", dry.calls);
    kill_in_each(&load, SECOND, &ROLLBACK, &dry.calls, roll_back);
    watch.finish();
    let left = fill_slots();
    assert!(left <= held && left.pins == held.pins, "{left:?}, before {held:?}");
    load.stop().unwrap();
    fresh();
}

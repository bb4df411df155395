//! Many swaps in a row under load: the scheduler stays on, nobody waits for ever, nothing piles up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::EnabledWatch;
use e2e::fresh;
use e2e::load;
use e2e::objects;
use e2e::pids;
use e2e::report;
use e2e::rounds;
use e2e::status;
use e2e::wait_until;
use guest::load::Kind;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const SWAPS: u32 = 100;

#[test]
fn a_hundred_swaps_back_and_forth_leave_nothing_behind() {
    fresh();
    let load = load(500);
    let first = report(&["run", V1]).generation;
    // Fill every slot, so that from here on each swap takes the place of an older policy.
    for binary in [V2, V1, V2, V1] {
        report(&["swap", binary]);
    }
    wait_until("superseded processes end", || pids("scx_fair_v1").len() + pids("scx_fair_v2").len() == 1);
    let held = objects();
    let watch = EnabledWatch::start();
    let forks = load.ops(Kind::Fork);
    let mut before = load.progress();

    let swaps = rounds(SWAPS);
    for n in 0..swaps / 4 {
        // There, back, forth again, and on to a fresh load of the other version.
        report(&["swap", V2]);
        report(&["rollback"]);
        report(&["rollback"]);
        report(&["swap", V1]);
        if n % 10 == 9 {
            wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
            before = load.progress();
        }
    }

    let now = status();
    assert_eq!(now.generation, first + 4 + swaps / 4 * 4);
    assert_eq!((now.slots.len(), now.queues.len(), now.pending), (4, 1, None));
    assert!(load.ops(Kind::Fork) > forks, "tasks were born and died meanwhile");
    watch.finish();
    wait_until("superseded processes end", || pids("scx_fair_v1").len() + pids("scx_fair_v2").len() == 1);
    wait_until("programs, maps, links and pins are as many as before", || objects() == held);
    load.stop().unwrap();
    fresh();
}

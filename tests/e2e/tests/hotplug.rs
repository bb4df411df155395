//! CPUs go and come while a policy runs: the host stays attached, and what waits on a queue of the CPU that goes is not lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use e2e::EnabledWatch;
use e2e::advances;
use e2e::fresh;
use e2e::load;
use e2e::report;

const LAST: &str = "/sys/devices/system/cpu/cpu1/online";
/// Each with queues of another span, per CPU first.
const POLICIES: [&str; 4] = ["/bin/queue_cpu", "/bin/queue_llc", "/bin/scx_fair", "/bin/scx_mini"];

fn set(online: bool) {
    fs::write(LAST, if online { "1" } else { "0" }).unwrap();
    let cpus = if online { "0-1" } else { "0" };
    assert_eq!(fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim(), cpus);
}

#[test]
fn cpus_go_and_come_under_each_kind_of_queue() {
    fresh();
    let load = load(100);
    report(&["run", POLICIES[0]]);
    let watch = EnabledWatch::start();
    for policy in POLICIES.iter().cycle().skip(1).take(POLICIES.len()) {
        advances(&load);
        set(false);
        advances(&load);
        // Loaded, swapped in, and taken back where a CPU is missing.
        report(&["swap", policy]);
        advances(&load);
        report(&["rollback"]);
        set(true);
        advances(&load);
        report(&["swap", policy]);
    }
    // Fast: what is on its queue has no time to go by itself.
    for n in 0..10 {
        set(n % 2 == 1);
    }
    advances(&load);
    watch.finish();
    load.stop().unwrap();
    fresh();
}

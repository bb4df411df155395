//! A host that has what its policies use, and no more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use e2e::EnabledWatch;
use e2e::advances;
use e2e::cli;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::status;
use e2e::wait_until;
use guest::reader::Reader;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::kernel::sysfs;

const MINI: &str = "/bin/scx_mini";
const LAT: &str = "/bin/scx_lat";
const CORE: &str = "/bin/scx_core";
/// Has neither a way to choose a CPU nor one to queue a task.
const BARE: &str = "/bin/bare";
/// What a host of scx_mini's does without, among others.
const ALL: [&str; 6] =
    ["runnable", "quiescent", "tick", "update_idle", "SCX_OPS_ENQ_EXITING", "SCX_OPS_ENQ_MIGRATION_DISABLED"];

#[test]
fn a_lean_host_does_without_what_nobody_in_it_uses() {
    fresh();
    let load = load(300);
    let lacks = |names: &[&str]| {
        let spared = status().spared;
        names.iter().filter(|name| spared.iter().any(|s| s == *name)).count()
    };
    report(&["run", "--lean", MINI]);
    assert_eq!((lacks(&ALL), lacks(&["select_cpu", "running", "stopping"])), (6, 0));
    assert!(cli(&["status"]).out.contains("lean        without "));
    assert!(cli(&["status"]).out.lines().all(|line| line.chars().count() <= 80));
    let mut reader = Reader::open(&Host::running(&Pins::open().unwrap()).unwrap()).unwrap();
    let mut in_fair = || reader.classes().unwrap().fair;
    advances(&load);
    // In place: who uses no more.
    let watch = EnabledWatch::start();
    assert!(!report(&["swap", MINI]).reattached);
    assert!(!report(&["swap", "/bin/scx_mix"]).reattached);
    assert!(!report(&["rollback"]).reattached);
    advances(&load);
    assert!(!report(&["swap", BARE]).reattached);
    advances(&load);
    assert!(!report(&["rollback"]).reattached);
    advances(&load);
    // Told beforehand, and not done unasked: who uses more.
    for (binary, names) in [(LAT, &ALL[..1]), (CORE, &ALL[2..])] {
        let plan = cli(&["plan", binary]);
        let refused = cli(&["swap", binary]);
        assert_eq!((plan.code, refused.code), (0, 4), "{}{}", plan.err, refused.err);
        for name in names.iter().chain(&["--minimal-ops", "--allow-reattach"]) {
            assert!(plan.out.contains(name), "{name} is not in: {}", plan.out);
            assert!(refused.err.contains(name), "{name} is not in: {}", refused.err);
        }
    }
    watch.finish();

    // Each is spared no longer, and whoever was loaded before needs no other host.
    for (binary, spares) in [(LAT, 5), (CORE, 1)] {
        assert!(report(&["swap", "--allow-reattach", binary]).reattached);
        assert_eq!(lacks(&ALL), spares);
        assert_eq!(in_fair(), 0);
        let watch = EnabledWatch::start();
        advances(&load);
        assert!(!report(&["rollback"]).reattached);
        advances(&load);
        assert!(!report(&["rollback"]).reattached);
        assert!(!report(&["swap", MINI]).reattached);
        advances(&load);
        watch.finish();
    }
    // Taken off by the kernel, it comes back as it was.
    fs::write("/proc/sysrq-trigger", "S").unwrap();
    wait_until("it is off", || sysfs::state() == "disabled");
    report(&["recover"]);
    assert_eq!((lacks(&ALL), status().state.as_str()), (1, "enabled"));
    assert_eq!(in_fair(), 0);
    advances(&load);
    cli(&["stop"]);
    report(&["run", BARE]);
    assert!(status().spared.is_empty());
    advances(&load);
    report(&["swap", MINI]);
    report(&["rollback"]);
    advances(&load);
    // Attached again, not started.
    fs::write("/proc/sysrq-trigger", "S").unwrap();
    wait_until("it is off", || sysfs::state() == "disabled");
    assert!(report(&["run", "--lean", MINI]).warnings.iter().any(|w| w.contains("--minimal-ops")));
    assert!(status().spared.is_empty());
    load.stop().unwrap();
    fresh();
}

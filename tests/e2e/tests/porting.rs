//! The scheduler of the porting guide, as it was and as it is then; and the policies that the book shows code of: each of
//! them serves every kind of load.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::EnabledWatch;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::report;
use e2e::start_by_hand;
use e2e::wait_until;
use guest::load::Load;
use scx_upgrade_engine::kernel::sysfs;

fn advances(load: &Load) {
    let before = load.progress();
    wait_until("every kind of load advances", || load.progress().stuck_since(&before).is_empty());
}

#[test]
fn porting_before_and_after() {
    fresh();
    let load = load(60);
    // Before: attached by its own process, and gone with it.
    let mut plain = start_by_hand("/bin/steady_plain", &["--slice-us", "3000"]);
    assert!(sysfs::ops().starts_with("steady"), "the kernel sees {}", sysfs::ops());
    advances(&load);
    kill(plain.id() as i32, libc::SIGINT);
    assert!(plain.wait().unwrap().success());
    wait_until("it is detached", || sysfs::state() == "disabled");

    // After: behind the host.
    report(&["run", "/bin/steady"]);
    let watch = EnabledWatch::start();
    advances(&load);
    for binary in ["/bin/book_spans", "/bin/book_first", "/bin/steady"] {
        report(&["swap", binary]);
        advances(&load);
    }
    report(&["rollback"]);
    advances(&load);
    watch.finish();
    load.stop().unwrap();
    fresh();
}

//! What must be refused, with what is said, while the old policy runs on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;

use e2e::EnabledWatch;
use e2e::Objects;
use e2e::cli;
use e2e::cli_as_nobody;
use e2e::fresh;
use e2e::objects;
use e2e::report;
use e2e::status;
use e2e::wait_until;

const V1: &str = "/bin/scx_fair_v1";

/// Swap to `binary` must fail with `code`, say each of `says`, and change nothing.
fn refused(binary: &str, code: i32, says: &[&str]) {
    let before = status();
    let held = settled();
    let watch = EnabledWatch::start();
    let ran = cli(&["swap", binary]);
    assert_eq!(ran.code, code, "swap to {binary}: {}{}", ran.out, ran.err);
    for words in says {
        assert!(ran.err.contains(words), "swap to {binary} does not say {words:?} but: {}", ran.err);
    }
    watch.finish();
    let after = status();
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.pending, None);
    assert_eq!(after.slots.len(), before.slots.len());
    assert_eq!(after.queues.len(), before.queues.len());
    wait_until("nothing of it is left in the kernel", || objects() <= held && objects().pins == held.pins);
}

/// The kernel frees BPF objects a moment after their last reference: wait until the count stands.
fn settled() -> Objects {
    let mut last = objects();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = objects();
        if now == last {
            return now;
        }
        last = now;
    }
}

#[test]
fn bad_policies_are_refused_and_the_old_one_runs_on() {
    fresh();
    report(&["run", V1]);
    refused("/bin/bad_verify", 1, &["bad_verify does not load", "invalid mem access", "bad_running"]);
    refused("/bin/bad_abi", 1, &["built for host version 999", "rebuild the policy"]);
    refused("/bin/bad_sleepable", 1, &["init_task is sleepable", "BPF_STRUCT_OPS"]);
    // The looks say what the swap says.
    let swap = cli(&["swap", "/bin/bad_sleepable"]).err;
    let looks: [&[&str]; 3] = [
        &["check", V1, "/bin/bad_sleepable"],
        &["plan", "/bin/bad_sleepable"],
        &["swap", "--dry-run", "/bin/bad_sleepable"],
    ];
    for look in looks {
        let ran = cli(look);
        assert_eq!((ran.code, &ran.err), (1, &swap), "{look:?}: {}", ran.out);
    }
    refused(
        "/bin/bad_flags",
        4,
        &["bad_flags cannot be swapped in", "SCX_OPS_SWITCH_PARTIAL", "--allow-reattach"],
    );
    refused("/bin/bad_type", 4, &["vtime", "u64", "u32"]);
    refused("/bin/bad_pointer", 4, &["friend", "pointer"]);
    refused("/bin/bad_convert", 4, &["task.level", "`scx:convert=nowhere`", "SCXU_CONVERSIONS"]);
    refused("/bin/bad_full", 4, &["task", "bytes"]);
    refused("/bin/scx-upgrade", 1, &["not a policy", "/bin/scx-upgrade"]);
    refused("/no/such/file", 1, &["/no/such/file"]);

    let text = "/tmp/not-elf";
    std::fs::write(text, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(text, std::fs::Permissions::from_mode(0o755)).unwrap();
    refused(text, 1, &["not a policy"]);

    let whole = std::fs::read("/bin/scx_fair_v2").unwrap();
    std::fs::write("/tmp/truncated", &whole[..whole.len() / 2]).unwrap();
    refused("/tmp/truncated", 1, &["/tmp/truncated"]);

    // After all of that the good one still goes in.
    assert_eq!(report(&["swap", "/bin/scx_fair_v2"]).generation, 2);
    fresh();
}

#[test]
fn an_ordinary_user_is_told_so() {
    fresh();
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    for args in [["swap", "/bin/scx_fair_v2"].as_slice(), &["rollback"], &["stop"], &["run", V1]] {
        let ran = cli_as_nobody(args);
        assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains("needs root"), "{args:?}: {}", ran.err);
    }
    watch.finish();
    assert_eq!(status().generation, 1);
    fresh();
}

#[test]
fn verbs_that_make_no_sense_now_say_so() {
    fresh();
    let swap = cli(&["swap", V1]);
    assert_eq!(swap.code, 3, "{}", swap.err);
    assert!(swap.err.contains("scx-upgrade run"), "{}", swap.err);
    assert_eq!(cli(&["rollback"]).code, 3);
    report(&["run", V1]);
    let rollback = cli(&["rollback"]);
    assert_eq!(rollback.code, 1, "{}", rollback.err);
    assert!(rollback.err.contains("nothing to roll back to"), "{}", rollback.err);
    let run = cli(&["run", "/bin/scx_fair_v2"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("scx-upgrade swap"), "{}", run.err);
    assert_eq!(cli(&["run", V1]).code, 77, "that very one runs already");
    let usage = cli(&["swap", V1, "--", "--no-such-option"]);
    assert_eq!(usage.code, 2, "{}", usage.err);
    assert!(usage.err.contains("no-such-option"), "{}", usage.err);
    assert_eq!(status().generation, 1);
    fresh();
}

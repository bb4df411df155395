//! The demo itself, small: it fails by itself when a record is not as it must be, and its report is whole.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use e2e::command;
use e2e::fresh;

#[test]
fn the_demo_holds_and_reports() {
    fresh();
    let report = "/tmp/demo-report.json";
    let picture = "/tmp/demo.svg";
    let options = ["--threads", "1000", "--window", "2", "--rounds", "1", "--attempts", "1"];
    let options = [&options[..], &["--report", report, "--picture", picture]].concat();
    let ran = command(Command::new("/bin/demo").args(options));
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.contains("sweep ") && svg.contains("scx_fair 2.0.0"), "{svg}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("the report has no number {key}"));
    for key in [
        "sweep_ns",
        "swap_total_ns",
        "rollback_commit_ns",
        "rollback_total_ns",
        "detach_ns",
        "attach_ns",
        "reattach_total_ns",
        "cpus",
        "threads",
        "tasks_carried",
    ] {
        assert!(number(key) > 0, "{key}");
    }
    assert!(number("tasks_live") >= 1000);
    assert_eq!(number("tasks_live"), number("tasks_verified"));
    assert_eq!(number("enable_seq_before"), number("enable_seq_after"));
    assert!(number("detach_ns") + number("attach_ns") >= 10_000 * number("commit_ns"));
    assert!(json["kernel"].is_string() && json["emulated"].is_boolean());
    for window in ["baseline", "swap", "rollback", "detach_attach"] {
        for key in ["p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(json[window][key].as_f64().is_some(), "{window}.{key}");
        }
        // Nothing happens before each of the three; the machine is watched in each.
        let windows = if window == "baseline" { 3 } else { 1 };
        assert_eq!(json[window]["windows"].as_u64(), Some(windows), "{window}");
        assert!(json[window]["control_max_us"].as_f64().is_some_and(|late| late > 0.0), "{window}");
    }
    fresh();
}

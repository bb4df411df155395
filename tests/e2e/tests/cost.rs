//! What the host adds to a context switch, in instructions. Needs a machine whose clock counts them; `cargo xtask test` boots
//! one for this suite.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use e2e::fresh;

/// Round trips of each measurement, of which the least of eight counts.
const ROUNDS: &str = "1000";
const REPORT: &str = "/tmp/pingpong.json";

#[test]
fn a_lean_host_adds_little_to_a_context_switch() {
    fresh();
    let policies = ["/bin/scx_mini", "/bin/scx_fair_v1"];
    let mut pingpong = Command::new("/bin/pingpong");
    pingpong.args(["--rounds", ROUNDS, "--report", REPORT]);
    pingpong.args(policies.iter().flat_map(|policy| ["--policy", policy]));
    assert!(pingpong.status().unwrap().success());

    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(REPORT).unwrap()).unwrap();
    let measured = report["policies"].as_array().unwrap();
    assert_eq!(measured.len(), policies.len());
    for of in measured {
        let direct = of["direct_ticks"].as_f64().unwrap();
        let more = |way: &str| (of[way].as_f64().unwrap() / direct - 1.0) * 100.0;
        let (lean, full) = (more("lean_ticks"), more("hosted_ticks"));
        println!("{}: lean {lean:+.2} %, full {full:+.2} %", of["policy"]);
        // Half of one for what else runs there: an instruction takes four nanoseconds, so ticks come four times as often as
        // where `cargo xtask bench` counts.
        assert!(lean < 1.5, "{}: a lean host adds {lean:.2} %", of["policy"]);
        assert!(full < 8.0, "{}: a host adds {full:.2} %", of["policy"]);
    }
    fresh();
}

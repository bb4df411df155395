//! How soon requests are answered under a policy, beside the kernel's default scheduler in the same run and turn by turn.
//! `cargo xtask test` boots a machine for this suite whose clock counts instructions, so that what else the computer does
//! that emulates it does not show.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use e2e::Busy;
use e2e::Cgroup;
use e2e::fresh;
use e2e::wait_until;
use guest::load::Load;
use guest::load::LoadSpec;
use guest::requests::Answers;

/// How often each is measured.
const TURNS: usize = 5;
/// Long enough for 400 requests: the 99th percentile has four above it.
const SECONDS: &str = "1";
const PERIOD_US: &str = "2500";
const WORK_US: &str = "200";
/// Averages and queues are to be those of the load when a measurement begins.
const CALM: Duration = Duration::from_millis(300);

/// What one measurement gave.
#[derive(Debug)]
struct Seen {
    answers: Answers,
    /// CPU time that the others had meanwhile, microseconds.
    others_us: u64,
}

/// Send requests within `group`. The others stand still but for that time: a policy is loaded sooner without them.
fn measure(group: &Cgroup, others: &Cgroup) -> Seen {
    others.set("cgroup.freeze", "0");
    std::thread::sleep(CALM);
    let before = others.usage_us();
    let mut child = Command::new("/bin/requests")
        .args(["--wait", "--seconds", SECONDS, "--period-us", PERIOD_US, "--work-us", WORK_US])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    group.take(child.id() as i32);
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let others_us = others.usage_us() - before;
    others.set("cgroup.freeze", "1");
    Seen { answers: serde_json::from_slice(&out.stdout).unwrap(), others_us }
}

/// Under the default scheduler, then under the policy, and so on.
fn compare(policy: &[&str], group: &Cgroup, others: &Cgroup) -> Vec<(Seen, Seen)> {
    let turn = |_| {
        fresh();
        let default = measure(group, others);
        let mut process = Command::new(format!("/bin/{}", policy[0]))
            .args(&policy[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("it runs", || scx_upgrade_sdk::kernel::state() == "enabled");
        let own = measure(group, others);
        e2e::kill(process.id() as i32, libc::SIGINT);
        process.wait().unwrap();
        println!(
            "99 of 100 within {:6.0} us by default, {:6.0} us with {}; the others had {} and {} us",
            default.answers.p99_us, own.answers.p99_us, policy[0], default.others_us, own.others_us
        );
        (default, own)
    };
    let all = (0..TURNS).map(turn).collect();
    fresh();
    all
}

#[test]
fn mix_answers_the_critical_sooner_and_the_rest_advance() {
    fresh();
    Cgroup::root().share_cpu();
    // The same weight, which the default scheduler goes by.
    let (critical, rest) = (Cgroup::new("mix_critical"), Cgroup::new("mix_rest"));
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&rest)).collect();
    rest.set("cgroup.freeze", "1");
    let option = critical.path().to_str().unwrap().to_owned();
    for (default, own) in compare(&["scx_mix", "--critical", &option], &critical, &rest) {
        let (old, new) = (default.answers.p99_us, own.answers.p99_us);
        assert!(new <= 0.9 * old, "{new} us, by default {old} us");
        assert!(own.others_us * 2 > default.others_us, "the others had {} us", own.others_us);
    }
    drop(hogs);
}

#[test]
fn lat_answers_sooner_beside_a_build() {
    fresh();
    Cgroup::root().set("cgroup.subtree_control", "-cpu");
    // Nobody has sorted them: without the cpu controller these cgroups have no weights. Processes that compute, more than
    // there are CPUs, and others that come, go, talk and wait.
    let (some, rest) = (Cgroup::new("lat_some"), Cgroup::new("lat_rest"));
    let mut spec = LoadSpec::mixed(60);
    spec.program = Some("/bin/load".into());
    let load = Load::start(spec).unwrap();
    load.pids().for_each(|pid| rest.take(pid as i32));
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&rest)).collect();
    rest.set("cgroup.freeze", "1");
    for (default, own) in compare(&["scx_lat"], &some, &rest) {
        let (old, new) = (default.answers.p99_us, own.answers.p99_us);
        assert!(new < old, "{new} us, by default {old} us");
    }
    rest.set("cgroup.freeze", "0");
    drop(hogs);
    load.stop().unwrap();
}

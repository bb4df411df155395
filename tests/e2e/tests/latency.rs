//! How soon requests are answered under a policy, beside the kernel's default scheduler in the same run and turn by turn.
//! `cargo xtask test` boots a machine for this suite whose clock counts instructions, so that what else the computer does
//! that emulates it does not show.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::process::Child;
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

/// How often each is measured where each time must be better, and where the median must.
const EACH_TURN: usize = 5;
const MEDIAN_OF: usize = 3;
/// Long enough for 400 requests: the 99th percentile has four above it.
const SECONDS: &str = "0.5";
/// Until a policy knows whom it has before it, seconds.
const WARM_UP: &str = "0.1";
const PERIOD_US: &str = "1250";
const WORK_US: &str = "100";
/// Averages and queues are to be those of the load when a measurement begins.
const CALM: Duration = Duration::from_millis(200);

/// What one measurement gave.
#[derive(Debug)]
struct Seen {
    answers: Answers,
    /// CPU time that the others had meanwhile, microseconds.
    others_us: u64,
}

/// Send requests within `group`. The others stand still but for that time: a policy is loaded sooner without them.
fn measure(group: &Cgroup, others: &Cgroup) -> Seen {
    others.freeze(false);
    std::thread::sleep(CALM);
    let before = others.usage_us();
    let mut child = Command::new("/bin/requests")
        .args(["--wait", "--warm-up", WARM_UP, "--seconds", SECONDS])
        .args(["--period-us", PERIOD_US, "--work-us", WORK_US])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    group.take(child.id() as i32);
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let others_us = others.usage_us() - before;
    others.freeze(true);
    Seen { answers: serde_json::from_slice(&out.stdout).unwrap(), others_us }
}

/// Under the default scheduler and under the policy, so many times each. Every other time the order is turned round, so that
/// of ten measurements only five have another scheduler than the one before: to load one takes long here.
fn compare(turns: usize, policy: &[&str], group: &Cgroup, others: &Cgroup) -> Vec<(Seen, Seen)> {
    fresh();
    let (mut default, mut own, mut running) = (Vec::new(), Vec::new(), None);
    for turn in 0..2 * turns {
        if matches!(turn % 4, 1 | 2) {
            running.get_or_insert_with(|| start(policy));
            own.push(measure(group, others));
        } else {
            running.take().into_iter().for_each(end);
            default.push(measure(group, others));
        }
    }
    running.take().into_iter().for_each(end);
    fresh();
    let all: Vec<_> = default.into_iter().zip(own).collect();
    for (default, own) in &all {
        // Shown also where all is well.
        let _ = writeln!(
            std::io::stderr(),
            "99 of 100 within {:6.0} us by default, {:6.0} us with {}; the others had {} and {} us",
            default.answers.p99_us,
            own.answers.p99_us,
            policy[0],
            default.others_us,
            own.others_us
        );
    }
    all
}

fn start(policy: &[&str]) -> Child {
    let mut command = Command::new(format!("/bin/{}", policy[0]));
    // Directly: it is the same policy, and a machine that counts takes long to verify the host.
    let process = command
        .args(&policy[1..])
        .arg("--direct")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it runs", || scx_upgrade_engine::kernel::sysfs::state() == "enabled");
    process
}

fn end(mut process: Child) {
    e2e::kill(process.id() as i32, libc::SIGINT);
    process.wait().unwrap();
    fresh();
}

#[test]
fn mix_answers_the_critical_sooner_and_the_rest_advance() {
    fresh();
    Cgroup::root().share_cpu();
    // The same weight, which the default scheduler goes by.
    let (critical, rest) = (Cgroup::new("mix_critical"), Cgroup::new("mix_rest"));
    let hogs: Vec<_> = (0..4).map(|_| Busy::start(&rest)).collect();
    rest.freeze(true);
    let option = critical.path().to_str().unwrap().to_owned();
    for (default, own) in compare(EACH_TURN, &["scx_mix", "--critical", &option], &critical, &rest) {
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
    rest.freeze(true);
    let (mut old, mut new): (Vec<_>, Vec<_>) = compare(MEDIAN_OF, &["scx_lat"], &some, &rest)
        .into_iter()
        .map(|(default, own)| (default.answers.p99_us, own.answers.p99_us))
        .unzip();
    old.sort_by(f64::total_cmp);
    new.sort_by(f64::total_cmp);
    // Who forks and ends beside them comes in between now and then, under either.
    assert!(new[MEDIAN_OF / 2] < old[MEDIAN_OF / 2], "{new:?} us, by default {old:?} us");
    rest.freeze(false);
    drop(hogs);
    load.stop().unwrap();
}

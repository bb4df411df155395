//! The load generator and the `load` binary, on an ordinary machine and small.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::load::{Kind, Load, LoadSpec};

/// Long enough for any machine; only a failure takes it.
const PATIENCE: Duration = Duration::from_secs(60);

fn spec(threads: usize) -> LoadSpec {
    LoadSpec { program: Some(env!("CARGO_BIN_EXE_load").into()), ..LoadSpec::mixed(threads) }
}

fn wait_for(mut happened: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.lines().any(|line| line == format!("PPid:\t{parent}")))
        })
        .collect()
}

#[test]
fn every_thread_works_and_none_is_left() {
    let mut last = 0;
    let load = Load::start_with(LoadSpec { processes: 3, ..spec(200) }, |up| {
        assert!(up >= last);
        last = up;
    })
    .unwrap();
    assert_eq!(last, 200);
    let live = load.live().unwrap();
    assert!((200..=200 + load.spec().count(Kind::Spawn)).contains(&live), "{live}");
    assert_eq!(load.pids().count(), 4);

    assert!(wait_for(|| load.progress().kinds.iter().all(|kind| kind.least >= 2)), "{:?}", load.progress());
    let before = load.progress();
    assert!(wait_for(|| load.progress().stuck_since(&before).is_empty()), "{:?}", load.progress());

    let pids: Vec<u32> = load.pids().collect();
    load.stop().unwrap();
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}

#[test]
fn a_load_that_is_dropped_ends() {
    let load = Load::start(LoadSpec { cpu_rest: Duration::ZERO, ..spec(50) }).unwrap();
    let pids: Vec<u32> = load.pids().collect();
    drop(load);
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}

#[test]
fn a_load_without_busy_kinds() {
    let quiet = LoadSpec { cpu_bound: 0, pairs: 0, forkers: 0, spawners: 0, ..spec(60) };
    let load = Load::start(quiet).unwrap();
    assert_eq!(load.live().unwrap(), 60);
    assert_eq!(load.ops(Kind::Cpu), 0);
    load.stop().unwrap();
}

#[test]
fn a_load_outlives_the_thread_that_started_it() {
    let load = std::thread::spawn(|| Load::start(spec(50)).unwrap()).join().unwrap();
    let before = load.progress();
    assert!(wait_for(|| load.progress().stuck_since(&before).is_empty()));
    load.stop().unwrap();
}

#[test]
fn a_load_ends_with_the_process_that_started_it() {
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--threads", "60", "--seconds", "600"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut workers = Vec::new();
    assert!(wait_for(|| {
        workers = children_of(load.id());
        workers.len() == 2
    }));
    load.kill().unwrap();
    load.wait().unwrap();
    assert!(wait_for(|| !workers.iter().any(|pid| alive(*pid))));
}

#[test]
fn a_worker_that_dies_is_an_error() {
    let load = Load::start(spec(50)).unwrap();
    let pid = load.pids().next().unwrap();
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(wait_for(|| !alive(pid)));
    let error = load.stop().unwrap_err().to_string();
    assert!(error.contains("ended early"), "{error}");
}

#[test]
fn a_program_that_is_no_worker_is_an_error() {
    let error =
        Load::start(LoadSpec { program: Some("/bin/true".into()), ..spec(50) }).unwrap_err().to_string();
    assert!(error.contains("ended"), "{error}");
}

#[test]
fn the_binary_reports_in_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--threads", "100", "--seconds", "0.5", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["threads"], 100);
    assert!(report["live"][0].as_u64().unwrap() >= 100);
    assert_eq!(report["kinds"].as_array().unwrap().len(), 5);
}

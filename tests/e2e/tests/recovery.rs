//! The kernel takes the host off: it is noticed, told, and what ran well before runs again with its state; or it is given up.
//! And another scheduler that runs is replaced, or put back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use e2e::cli;
use e2e::fresh;
use e2e::kill;
use e2e::load;
use e2e::objects;
use e2e::report;
use e2e::start_by_hand;
use e2e::status;
use e2e::wait_until;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::last_good;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::os::identity::Binary;
use scx_upgrade_engine::os::private_dir::PrivateDir;
use scx_upgrade_engine::transition::frontend;
use scx_upgrade_engine::transition::frontend::Launch;
use serde_json::Value;
use state_migrate::Btf;
use state_migrate::Kind;

const GOOD: &str = "/bin/ledger_a";
const BAD: &str = "/bin/misbehave";
/// Longer than anything here takes, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(180);

/// `recover --watch`, in the background.
struct Supervisor {
    child: Child,
    events: Receiver<Value>,
}

impl Supervisor {
    fn start(args: &[&str]) -> Supervisor {
        let mut child = Command::new("/bin/scx-upgrade")
            .args(["--json", "recover", "--watch"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, events) = mpsc::channel();
        // Its end is that of the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // What it gives up with is a document of many lines.
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if send.send(event).is_err() {
                    break;
                }
            }
        });
        Supervisor { child, events }
    }

    /// The next event, which must be this one; but for what becomes of policies' processes, which come and go as they like.
    fn next(&self, event: &str) -> Value {
        loop {
            let next = self.events.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no {event}: {e}"));
            if next["event"] == event {
                return next;
            }
            assert!(next["event"].as_str().unwrap().starts_with("process_"), "{event} was to come: {next}");
        }
    }

    /// Its own end; the exit code.
    fn ends(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    fn stop(self) -> i32 {
        kill(self.child.id() as i32, libc::SIGTERM);
        self.ends()
    }
}

fn done(event: &Value) -> Report {
    serde_json::from_value(event["report"].clone()).unwrap()
}

#[test]
fn an_ejected_policy_makes_way_for_the_good_one_with_its_state() {
    fresh();
    let load = load(100);
    let started = report(&["run", GOOD]);
    let raw = sysfs::btf().unwrap();
    let tells = Btf::parse(&raw).unwrap().find(Kind::Typedef, "btf_trace_sched_ext_exit").is_some();
    for (how, kind, says) in [
        ("error", "own_error", "misbehave has had enough"),
        ("no-cpu", "error", "4095"),
        ("wrong-kind", "error", "FIFO"),
    ] {
        // A new one each time: it waits longer after each ejection that it remembers. What ran for long would be brought back
        // itself.
        let supervisor = Supervisor::start(&["--good-after", "1h"]);
        let by = supervisor.next("watching")["by"].clone();
        assert_eq!(by, if tells { "tracepoint" } else { "polling" });
        let generation = report(&["swap", BAD, "--", "--how", how, "--after-ms", "5000"]).generation;
        let event = supervisor.next("ejected");
        assert_eq!(event["told"], tells, "{event}");
        let ejected = event["ejection"].clone();
        assert_eq!(
            (ejected["kind"].as_str(), ejected["generation"].as_u64()),
            (Some(kind), Some(generation.into()))
        );
        assert!(ejected["reason"].as_str().unwrap().contains(says), "{ejected}");
        let recovered = supervisor.next("recovered");
        supervisor.next("watching");
        let back = done(&recovered);
        assert!(back.to.starts_with("ledger_a"), "{}", back.to);
        let lost: Vec<_> = back.columns.iter().filter(|c| c.fate == "defaulted").collect();
        assert!(lost.is_empty(), "{how}: {lost:?}");
        let after_ms = recovered["after_ms"].as_u64().unwrap();
        println!(
            "{how}: recovered {after_ms} ms after that was noticed, attached in {} ms",
            back.timings.attach_ns / 1_000_000
        );
        // What takes long was done ahead.
        assert!(u128::from(after_ms) * 1_000_000 < u128::from(started.timings.total_ns), "{after_ms} ms");
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
        assert_eq!(supervisor.stop(), 0);
        assert_eq!(sysfs::state(), "enabled", "the scheduler does not depend on who watches it");
    }
    let dump = PrivateDir::of_this_machine().read(c"ejection.dump", 1 << 20).unwrap().unwrap();
    assert!(String::from_utf8_lossy(&dump).contains("CPU states"), "{}", String::from_utf8_lossy(&dump));
    let history = cli(&["history"]).out;
    assert!(history.contains("eject") && history.contains("recover"), "{history}");
    load.stop().unwrap();
    fresh();
}

#[test]
fn it_gives_up_rather_than_flap_and_nothing_is_forgotten() {
    fresh();
    let load = load(50);
    let supervisor = Supervisor::start(&["--at-most", "2"]);
    report(&["run", BAD, "--", "--how", "error", "--after-ms", "5000"]);
    supervisor.next("watching");
    supervisor.next("ejected");
    // From then on it errs at once: as soon as it is attached, or on the way there.
    let later: Vec<_> = supervisor.events.iter().collect();
    let of = |event: &str| later.iter().filter(|e| e["event"] == event).count();
    assert!(of("recovered") <= 2 && of("ejected") <= 2, "{later:?}");
    assert_eq!(supervisor.ends(), 5);
    assert_eq!(sysfs::state(), "disabled");
    let status = cli(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.err.contains("misbehave has had enough"), "{status:?}");
    // Its state is there for the mended one.
    let mended = report(&["swap", GOOD]);
    assert!(mended.columns.iter().all(|column| column.fate != "defaulted"), "{:?}", mended.columns);
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    load.stop().unwrap();
    fresh();
}

#[test]
fn what_a_person_took_off_is_left_alone() {
    fresh();
    report(&["run", GOOD]);
    let nothing = cli(&["recover"]);
    assert_eq!(nothing.code, 0, "{}", nothing.err);
    assert!(nothing.out.contains("nothing to bring back"), "{}", nothing.out);
    let supervisor = Supervisor::start(&[]);
    supervisor.next("watching");
    fs::write("/proc/sysrq-trigger", "S").unwrap();
    assert_eq!(supervisor.next("ejected")["ejection"]["kind"], "sysrq");
    supervisor.next("left_alone");
    assert_eq!(sysfs::state(), "disabled");
    // Once, by hand; and then it is watched again.
    let back = report(&["recover"]);
    assert!(back.columns.iter().all(|column| column.fate == "carried"), "{:?}", back.columns);
    assert_eq!(supervisor.next("watching")["generation"], back.generation);
    assert_eq!(status().generation, back.generation);
    assert_eq!(supervisor.stop(), 0);
    fresh();
    assert_eq!(cli(&["recover"]).code, 3, "nothing is there to be brought back");
}

#[test]
fn after_a_boot_the_last_good_one_is_started_with_what_it_knew() {
    fresh();
    let load = load(50);
    let binary = "/tmp/good";
    fs::copy(GOOD, binary).unwrap();
    fs::set_permissions(binary, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = PrivateDir::of_this_machine();
    let _ = fs::remove_file(folder.file(c"last-good.json"));
    report(&["run", "--lean", binary]);
    let spared = status().spared;
    assert!(!spared.is_empty());
    let supervisor = Supervisor::start(&["--good-after", "1s", "--save-every", "1s"]);
    supervisor.next("watching");
    wait_until("it is known to be good", || folder.file(c"last-good.json").exists());
    wait_until("what it knows is saved", || last_good::snapshot(&folder).exists());
    assert_eq!(supervisor.stop(), 0);
    // All that a boot takes away.
    fresh();

    let supervisor = Supervisor::start(&["--boot"]);
    let started = done(&supervisor.next("started"));
    assert!(started.to.starts_with("ledger_a"), "{}", started.to);
    assert!(started.restored.unwrap().scopes.iter().any(|scope| scope.restored > 0));
    assert_eq!(status().spared, spared, "its host is as lean as it was");
    supervisor.next("watching");
    assert_eq!(supervisor.stop(), 0);
    fresh();

    // Another file in its place is not what ran well. Written anew: its process may still be on its way out.
    fs::remove_file(binary).unwrap();
    fs::copy("/bin/plain", binary).unwrap();
    let supervisor = Supervisor::start(&["--boot"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sysfs::state(), "disabled");
    assert_eq!(supervisor.stop(), 0);
    load.stop().unwrap();
    fresh();
}

#[test]
fn a_stranger_is_replaced_when_all_is_ready_and_put_back_where_it_fails() {
    fresh();
    let load = load(50);
    let mut stranger = start_by_hand("/bin/scx_mini", &["--direct"]);
    let refused = cli(&["run", GOOD]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("scx_mini") && refused.err.contains("run --replace"), "{}", refused.err);
    // The kernel counts a moment after it says `enabled`.
    let seq = sysfs::enable_seq();
    let not_loaded = cli(&["run", "--replace", "/bin/bad_verify"]);
    assert_eq!(not_loaded.code, 1, "{}", not_loaded.err);
    assert_eq!((sysfs::state().as_str(), sysfs::enable_seq()), ("enabled", seq), "it has not been touched");

    let put_back = cli(&["run", "--replace", "/bin/bad_enable"]);
    assert_eq!(put_back.code, 1, "{}", put_back.err);
    assert!(put_back.err.contains("attached again"), "{}", put_back.err);
    assert!(sysfs::ops().starts_with("scx_mini"), "{}", sysfs::ops());
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());

    // A pin is all that holds it now.
    stranger.wait().unwrap();
    let seq = sysfs::enable_seq();
    assert_eq!(cli(&["run", "--replace", "/bin/bad_verify"]).code, 1);
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    assert_eq!((sysfs::state().as_str(), sysfs::enable_seq()), ("enabled", seq), "it has not been touched");

    let replaced = report(&["run", "--replace", GOOD]);
    assert!(replaced.from.as_deref().unwrap().starts_with("scx_mini"), "{:?}", replaced.from);
    assert!(replaced.timings.gap_ns > 0);
    assert!(
        replaced.timings.gap_ns < replaced.timings.load_ns,
        "what takes long was done before: {:?}",
        replaced.timings
    );
    let before = load.progress();
    wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    load.stop().unwrap();
    fresh();
    wait_until("nothing is left", || objects().pins == 0);
}

#[test]
fn a_process_that_ended_is_started_again_and_finds_what_its_policy_counts() {
    fresh();
    let of_good = || status().slots.into_iter().find(|slot| slot.active).unwrap();
    let counts = || fs::read_to_string("/run/scx-upgrade/scx_mini.log").unwrap().contains("queued");
    report(&["run", "/bin/scx_mini", "--", "--stats", "1"]);
    let loader = of_good().pid;
    report(&["swap", GOOD]);
    wait_until("superseded, it ends", || e2e::pids("scx_mini").is_empty());

    // By a rollback.
    report(&["rollback"]);
    let slot = of_good();
    assert!(slot.alive && slot.pid != loader, "{slot:?}");
    assert_eq!(slot.args[1..], ["--stats", "1"]);
    wait_until("it shows what the policy counts", counts);

    // By the supervisor, once in a while.
    let supervisor = Supervisor::start(&["--attend"]);
    supervisor.next("watching");
    kill(slot.pid as i32, libc::SIGKILL);
    assert_eq!(supervisor.next("process_ended")["pid"], slot.pid);
    let again = supervisor.next("process_started")["pid"].as_u64().unwrap() as u32;
    wait_until("the registry knows it", || of_good().pid == again && of_good().alive);
    wait_until("it shows what the policy counts", counts);
    kill(again as i32, libc::SIGKILL);
    assert_eq!(supervisor.next("process_ended")["pid"], again);
    assert_eq!(supervisor.stop(), 0);
    assert!(!of_good().alive, "it was started again at once");

    // Not from another file, and not beside one that is there. The policy runs on.
    report(&["swap", "/bin/scx_mini"]);
    let live = of_good().pid;
    for (binary, why) in [("/bin/scx_mini", "is its frontend already"), (GOOD, "not from this binary")] {
        let path = Path::new(binary);
        let policy = Policy::from_binary(path).unwrap().from(Binary::of(path).unwrap());
        let launch = Launch { program: path, path, args: &[], unit: false };
        let refused = frontend::restart(&Pins::open().unwrap(), &policy, launch).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!((sysfs::state().as_str(), of_good().pid), ("enabled", live));
    fresh();
}

//! The schedulers that come with the project: every ordered pair is swapped under load, and each does what it promises, in
//! comparison with the kernel's default scheduler in the same run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::fresh;
use e2e::load;
use e2e::report;
use e2e::wait_until;
use guest::reader::Reader;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;

const ALL: [&str; 6] = ["scx_mini", "scx_fair", "scx_lat", "scx_mix", "scx_core", "scx_quota"];

/// How many windows shares are measured in, and how long each is.
const SHARE_WINDOWS: usize = 3;
const SHARE_WINDOW: Duration = Duration::from_secs(12);

/// A walk over the complete graph that takes each directed edge once: each next not yet taken, the farthest first.
fn every_pair() -> Vec<usize> {
    let n = ALL.len();
    let (mut left, mut stack, mut walk) = (vec![(0..n).collect::<Vec<_>>(); n], vec![0], Vec::new());
    left.iter_mut().enumerate().for_each(|(own, to)| to.retain(|other| *other != own));
    while let Some(&at) = stack.last() {
        match left[at].pop() {
            Some(next) => stack.push(next),
            None => walk.push(stack.pop().unwrap()),
        }
    }
    walk.reverse();
    walk
}

#[test]
fn schedulers_swap_in_every_ordered_pair() {
    fresh();
    let walk = every_pair();
    assert_eq!(walk.len(), ALL.len() * (ALL.len() - 1) + 1);
    let load = load(300);
    report(&["run", &format!("/bin/{}", ALL[walk[0]])]);
    let mut reader = Reader::open(&Host::running(&Pins::open().unwrap()).unwrap()).unwrap();
    let watch = EnabledWatch::start();
    let mut rows = Vec::new();
    for pair in walk.windows(2) {
        let (from, to) = (ALL[pair[0]], ALL[pair[1]]);
        let done = report(&["swap", &format!("/bin/{to}")]);
        let carried: Vec<_> = done
            .columns
            .iter()
            .filter(|row| row.fate == "carried" || row.fate == "converted")
            .map(|row| row.column.clone())
            .collect();
        // Who has had how much is known to each of them.
        for column in ["vtime", "vtime_lag_ns", "vtime_now", "last_run_at_ns"] {
            assert!(carried.iter().any(|c| c == column), "{from} to {to}: {column} is not among {carried:?}");
        }
        rows.push(format!("| {from} | {to} | {} |\n", carried.join(", ")));
        assert_eq!(reader.classes().unwrap().fair, 0, "{from} to {to}: tasks in the fair class");
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    }
    let known = include_str!("../../../docs/schedulers.md");
    let pairs =
        known.split("<!-- pairs:begin -->\n").nth(1).unwrap().split("<!-- pairs:end -->").next().unwrap();
    rows.sort();
    let table = format!("| from | to | carried |\n| --- | --- | --- |\n{}", rows.concat());
    assert_eq!(pairs, table, "docs/schedulers.md says otherwise");
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn fair_keeps_the_shares_of_nested_cgroups() {
    fresh();
    Cgroup::root().share_cpu();
    let group = |name: &str, weight| {
        let group = Cgroup::new(name);
        group.set_weight(weight);
        group
    };
    // Three levels. Each leaf has as many hogs as there are CPUs, so none is short of tasks for its share.
    let (a, b) = (group("fair_a", 100), group("fair_b", 200));
    a.share_cpu();
    let (a1, a2) = (group("fair_a/one", 300), group("fair_a/two", 100));
    a1.share_cpu();
    let (a1x, a1y) = (group("fair_a/one/x", 100), group("fair_a/one/y", 200));
    let leaves = [(&a1x, 1.0 / 12.0), (&a1y, 1.0 / 6.0), (&a2, 1.0 / 12.0), (&b, 2.0 / 3.0)];
    report(&["run", "/bin/scx_mini"]);
    // Some are taken over while they run: nobody told it of any cgroup. The others come later.
    let first = [Busy::start(&a1x), Busy::start(&a1x)];
    report(&["swap", "/bin/scx_fair"]);
    let hogs: Vec<_> =
        leaves[1..].iter().flat_map(|(leaf, _)| [Busy::start(leaf), Busy::start(leaf)]).collect();
    let watch = EnabledWatch::start();
    let usage = || leaves.map(|(leaf, _)| leaf.usage_us());
    let shares = |before: [u64; 4]| {
        let used = usage().into_iter().zip(before).map(|(now, before)| now - before);
        let used: Vec<_> = used.collect();
        let all = used.iter().sum::<u64>() as f64;
        used.into_iter().zip(&leaves).map(|(used, (_, share))| used as f64 / all / share).collect::<Vec<_>>()
    };
    // An emulated CPU may stand still for the length of many turns, which shows in the window in which it does. The median of a
    // fixed number of windows, for each leaf by itself, is what the policy does.
    let windows: Vec<_> = (0..SHARE_WINDOWS)
        .map(|_| {
            let before = usage();
            std::thread::sleep(SHARE_WINDOW);
            let got = shares(before);
            println!("of their shares: {got:.4?}");
            got
        })
        .collect();
    for (leaf, (group, _)) in leaves.iter().enumerate() {
        let mut parts: Vec<_> = windows.iter().map(|got| got[leaf]).collect();
        parts.sort_by(f64::total_cmp);
        let median = parts[SHARE_WINDOWS / 2];
        assert!((median - 1.0).abs() < 0.03, "{:?}: {median:.4} of its share, {parts:.4?}", group.path());
    }
    watch.finish();
    drop((first, hogs));
    drop((a, b));
    fresh();
}

/// What the template makes, started and swapped in as its README says, each over the one before.
#[test]
fn schedulers_from_the_template_run_and_swap() {
    fresh();
    let load = load(100);
    report(&["run", "/bin/generated-fair"]);
    let watch = EnabledWatch::start();
    for next in ["llc", "cgroup", "fair", "cgroup", "llc", "fair"] {
        report(&["swap", &format!("/bin/generated-{next}")]);
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
    }
    watch.finish();
    load.stop().unwrap();
    fresh();
}

#[test]
fn schedulers_attach_directly() {
    for binary in ALL {
        fresh();
        let load = load(100);
        let path = format!("/bin/{binary}");
        let mut direct = e2e::start_by_hand(&path, &["--direct"]);
        let before = load.progress();
        wait_until("every kind advances", || load.progress().stuck_since(&before).is_empty());
        e2e::kill(direct.id() as i32, libc::SIGINT);
        let ended = direct.wait().unwrap();
        assert!(ended.success(), "{binary}: {ended}");
        load.stop().unwrap();
    }
}

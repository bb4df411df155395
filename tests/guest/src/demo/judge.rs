//! What a report must show, else the demo fails. Latency is left to who reads it.

use super::report::{Report, Verifications};

/// The kernel's own way takes at least this many times as long as the commit.
const FASTER: u64 = 10_000;
/// A thread that waits this long for its turn is starved, however slow the machine. In nanoseconds.
const STARVED_NS: u64 = 2_000_000_000;

/// What is wrong, in words; nothing when all is well.
pub fn failures(report: &Report) -> Vec<String> {
    let mut failures = Vec::new();
    let mut must = |holds: bool, otherwise: String| {
        if !holds {
            failures.push(otherwise);
        }
    };
    must(report.verification.is_some(), "nothing was verified".to_owned());
    for (name, v) in report.all_verifications().flat_map(Verifications::all) {
        let what = v.failures.join("\n    ");
        must(
            v.verified == v.live,
            format!("{name}: {} of {} tasks verified:\n    {what}", v.verified, v.live),
        );
        must(v.idle > 0, format!("{name}: no task slept through it, so nothing could be compared exactly"));
    }
    must(
        report.enable_seq_before == report.enable_seq_after,
        format!("enable_seq went from {} to {}", report.enable_seq_before, report.enable_seq_after),
    );
    must(report.state_after == "enabled", format!("after the rollback the state is {}", report.state_after));
    for (name, watch) in [("swap", &report.swap_watch), ("rollback", &report.rollback_watch)] {
        let enabled = watch.states.keys().all(|state| state == "enabled");
        must(enabled, format!("{name}: the kernel's state left enabled: {:?}", watch.states));
        must(watch.fair_max == 0, format!("{name}: {} tasks were seen in the fair class", watch.fair_max));
    }
    for load in &report.load {
        must(load.stuck.is_empty(), format!("{}: no thread of {:?} advanced", load.phase, load.stuck));
        let overdue_ms = load.overdue_ns / 1_000_000;
        must(
            load.overdue_ns < STARVED_NS,
            format!("{}: a thread was overdue by {overdue_ms} ms", load.phase),
        );
    }
    let reattach_ns = report.detach_ns + report.attach_ns;
    must(
        reattach_ns >= FASTER.saturating_mul(report.commit_ns),
        format!(
            "detach and attach took {reattach_ns} ns, only {:.0} times the commit's {} ns",
            report.commits_per_reattach(),
            report.commit_ns
        ),
    );
    failures
}

#[cfg(test)]
mod tests {
    use super::super::report::{PhaseLoad, Timeline};
    use super::*;
    use crate::verify::Verification;

    fn good() -> Report {
        let verified = Verification { live: 2, idle: 1, ran: 1, verified: 2, ..Verification::default() };
        Report {
            verification: Some(Verifications {
                swap: verified.clone(),
                rollback: verified.clone(),
                round_trip: verified,
            }),
            state_after: "enabled".to_owned(),
            enable_seq_before: 1,
            enable_seq_after: 1,
            commit_ns: 1_000,
            detach_ns: 6_000_000,
            attach_ns: 5_000_000,
            ..Report::default()
        }
    }

    fn blamed(spoil: impl FnOnce(&mut Report)) -> String {
        let mut report = good();
        spoil(&mut report);
        let failures = failures(&report);
        assert_eq!(failures.len(), 1, "{failures:?}");
        failures[0].clone()
    }

    #[test]
    fn a_good_report_has_no_failures() {
        assert_eq!(failures(&good()), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        assert!(blamed(|r| r.verification = None).contains("nothing"));
        let unverified = blamed(|r| {
            if let Some(v) = &mut r.verification {
                v.swap.verified = 1;
            }
        });
        assert!(unverified.contains("swap: 1 of 2"));
        let later = blamed(|r| {
            let mut second = r.verification.clone().unwrap();
            second.rollback.verified = 0;
            r.more_verifications.push(second);
        });
        assert!(later.contains("rollback: 0 of 2"), "{later}");
        assert!(blamed(|r| r.enable_seq_after = 2).contains("enable_seq"));
        assert!(blamed(|r| r.state_after = "disabled".to_owned()).contains("disabled"));
        assert!(blamed(|r| r.rollback_watch.fair_max = 3).contains("rollback: 3 tasks"));
        let left = [("enabled".to_owned(), 5), ("disabling".to_owned(), 1)];
        assert!(blamed(|r| r.swap_watch.states = left.into()).contains("disabling"));
        assert!(blamed(|r| r.commit_ns = 2_000).contains("5500 times"));
    }

    #[test]
    fn a_stuck_load_is_a_failure() {
        let spec = crate::load::LoadSpec::mixed(0);
        let kinds = crate::load::Kind::ALL.map(|kind| crate::load::KindProgress {
            kind,
            threads: spec.count(kind),
            ops: 0,
            least: 0,
            overdue_ns: 0,
        });
        let progress = crate::load::Progress { kinds };
        let stuck = vec![crate::load::Kind::Pair];
        let load = PhaseLoad { phase: "swap", stuck, overdue_ns: 0, progress, timeline: Timeline::default() };
        assert!(blamed(|r| r.load.push(load.clone())).contains("Pair"));
        let late = PhaseLoad { stuck: vec![], overdue_ns: 5_000_000_000, ..load };
        assert!(blamed(|r| r.load.push(late)).contains("5000 ms"));
    }
}

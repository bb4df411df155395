//! The report for a person, 80 columns wide.

use std::fmt::Write as _;

use super::report::Report;
use super::rounds::Summary;

/// The whole text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut out);
    out
}

fn write(r: &Report, out: &mut String) -> std::fmt::Result {
    let emulated = if r.emulated { ", emulated: 10 to 30 times slower" } else { "" };
    writeln!(out, "Linux {}, {} CPUs{emulated}", r.kernel, r.cpus)?;
    writeln!(out, "{} live threads of load, {} tasks in all", r.live_threads, r.tasks_live)?;
    writeln!(out)?;
    writeln!(out, "{:<34}{:>15}{:>15}{:>15}", "", "scx-upgrade", "scx-upgrade", "the kernel's")?;
    writeln!(out, "{:<34}{:>15}{:>15}{:>15}", "", "swap", "rollback", "detach+attach")?;
    let mut row = |name: &str, swap: String, rollback: String, kernel: String| {
        writeln!(out, "{name:<34}{swap:>15}{rollback:>15}{kernel:>15}")
    };
    let none = || "-".to_owned();
    let reattach = r.detach_ns + r.attach_ns;
    row("tasks without their scheduler", duration(0), duration(0), duration(reattach))?;
    row("the change itself", duration(r.commit_ns), duration(r.rollback_commit_ns), duration(reattach))?;
    let as_operator = if r.reattach_total_ns == 0 { none() } else { duration(r.reattach_total_ns) };
    row(
        "  with load, verifier and sweep",
        duration(r.swap_total_ns),
        duration(r.rollback_total_ns),
        as_operator,
    )?;
    row("  of it the sweep of all tasks", duration(r.sweep_ns), none(), none())?;
    let fair = |seen: &crate::reader::Seen| seen.fair_max.to_string();
    row(
        "most tasks seen in the fair class",
        fair(&r.swap_watch),
        fair(&r.rollback_watch),
        fair(&r.detach_attach_watch),
    )?;
    if let Some(v) = &r.verification {
        row("live tasks", v.swap.live.to_string(), v.rollback.live.to_string(), none())?;
        let verified = |v: &crate::verify::Verification| v.verified.to_string();
        row(
            "  whose state is as it must be",
            verified(&v.swap),
            verified(&v.rollback),
            "none kept".to_owned(),
        )?;
        let idle = |v: &crate::verify::Verification| v.idle.to_string();
        row("  of them asleep, equal to the byte", idle(&v.swap), idle(&v.rollback), none())?;
    }
    writeln!(out)?;
    writeln!(out, "{:<24}{:>14}{:>14}{:>14}{:>14}", "wake-up delay, us", "p50", "p99", "p99.9", "max")?;
    let windows = [
        ("nothing happens", &r.baseline),
        ("swap", &r.swap),
        ("rollback", &r.rollback),
        ("detach+attach", &r.detach_attach),
    ];
    for (name, window) in windows {
        let Some(Summary { p50_us, p99_us, p999_us, max_us, .. }) = window else { continue };
        writeln!(out, "{name:<24}{p50_us:>14.0}{p99_us:>14.0}{p999_us:>14.0}{max_us:>14.0}")?;
    }
    for (name, window) in windows {
        let Some(window) = window.as_ref().filter(|window| window.windows > 1) else { continue };
        let span = |of: super::rounds::Spread| format!("{:.0}-{:.0}", of.least, of.most);
        let title = format!("  {name}, of {}", window.windows);
        let [p999, max] = [window.p999_spread_us, window.max_spread_us].map(span);
        writeln!(out, "{title:<24}{:>14}{:>14}{p999:>14}{max:>14}", "", "")?;
    }
    for (name, window) in windows {
        let Some(window) = window else { continue };
        if window.measured_again > 0 {
            writeln!(
                out,
                "{name}: {} windows measured again, the machine stood still",
                window.measured_again
            )?;
        }
        if window.stood_still > 0 {
            let ms = window.control_max_us / 1e3;
            writeln!(
                out,
                "{name}: the machine stood still in {} that count, {ms:.0} ms",
                window.stood_still
            )?;
        }
    }
    writeln!(out)?;
    writeln!(out, "carried    {}", r.columns_shared.join(", "))?;
    writeln!(out, "new        {}", r.columns_new.join(", "))?;
    writeln!(out, "retained   {} (for the rollback)", r.columns_retained.join(", "))?;
    let (before, after) = (r.enable_seq_before, r.enable_seq_after);
    writeln!(out, "kernel     state {}, enable_seq {before} before and {after} after", r.state_after)?;
    writeln!(out, "detach+attach takes {:.0} times as long as the commit", r.commits_per_reattach())?;
    if let Some(ratio) = r.p999_ratio() {
        writeln!(out, "p99.9 of the swap's window is {ratio:.2} times that with nothing happening")?;
    }
    for failure in &r.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    Ok(())
}

/// Nanoseconds in the unit that reads best.
fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rounds::Spread;
    use super::*;

    #[test]
    fn every_line_fits() {
        let window = || {
            let of = |ms| Spread { least: ms * 1e3, most: ms * 1e4 };
            Some(Summary {
                p999_us: 31_234.5,
                max_us: 1_234_567.8,
                windows: 12,
                p999_spread_us: of(31.0),
                max_spread_us: of(123.0),
                measured_again: 12,
                stood_still: 12,
                control_max_us: 1_234_567.0,
                ..Summary::default()
            })
        };
        let report = Report {
            kernel: "7.3.4+deb13-cloud-amd64".to_owned(),
            emulated: true,
            cpus: 2,
            commit_ns: 2_345,
            detach_ns: 5_000_000_000,
            baseline: window(),
            swap: window(),
            columns_shared: ["vtime", "avg_runtime", "wakeup_freq", "last_woke_at", "last_run_at"]
                .map(str::to_owned)
                .to_vec(),
            ..Report::default()
        };
        let text = render(&report);
        for part in
            ["2345 ns", "swap, of 12", "31000-310000", "12 windows measured again", "in 12 that count"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

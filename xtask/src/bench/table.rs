//! The figures as Markdown tables.

use std::fmt::{self, Write as _};

use super::result::{
    Bench, ByThreads, Instructions, PolicyInstructions, Published, Spread, Watch, Way, Window,
};

/// The whole text. A part that was not measured is left out.
pub fn render(bench: &Bench) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(bench, &mut out);
    out
}

fn write(bench: &Bench, out: &mut String) -> fmt::Result {
    measured_on(bench, out)?;
    if !bench.by_threads.is_empty() {
        times(&bench.by_threads, out)?;
        delays(bench, out)?;
    }
    if let Some(run) = &bench.counted {
        counted_delays(run, out)?;
    }
    if !bench.published.is_empty() {
        published(&bench.published, out)?;
    }
    if let Some(counted) = &bench.instructions {
        instructions(counted, out)?;
    }
    Ok(())
}

/// Names the command, the kernel and the machine of the figures.
fn measured_on(bench: &Bench, out: &mut String) -> fmt::Result {
    let machine = &bench.machine;
    let emulated = if machine.emulated {
        ", **emulated** (QEMU without KVM: 10 to 30 times slower than hardware)"
    } else {
        ""
    };
    writeln!(out, "`{}` on Linux {}, {} CPUs{emulated}.", bench.command, machine.kernel, machine.cpus)
}

/// One table for readers who do not know the project yet: the run with the most threads, and two sentences on the other parts.
pub fn summary(bench: &Bench) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = measured_on(bench, &mut out);
    if let Some(run) = bench.by_threads.iter().max_by_key(|run| run.threads) {
        let _ = compared(run, &mut out);
    }
    if let Some(run) = bench.published.iter().max_by_key(|run| run.threads) {
        let _ = without_scheduler(run, &mut out);
    }
    if let Some(policy) = bench.instructions.iter().flat_map(|counted| &counted.policies).next() {
        let _ = added_by_the_host(policy, &mut out);
    }
    out
}

/// The three ways to change the policy, side by side.
fn compared(run: &ByThreads, out: &mut String) -> fmt::Result {
    let threads = format!("beside {} threads", count(u64::from(run.threads)));
    head(&threads, ["swap", "rollback", "detach and attach"].map(str::to_owned), out)?;
    row(
        "the commit, one store",
        [duration(run.commit_ns), duration(run.rollback_commit_ns), String::new()],
        out,
    )?;
    let reattach = match run.reattach_total_ns {
        Some(total) => format!("{}, with load and verifier", duration(total)),
        None => format!("{}, without load and verifier", duration(run.reattach_ns())),
    };
    let swap = format!("{}, with load and verifier", duration(run.swap_total_ns));
    row("all of it", [swap, duration(run.rollback_total_ns), reattach], out)?;
    let watches = [run.swap_watch, run.rollback_watch, run.detach_attach_watch];
    row("most tasks seen in the fair class", watches.map(fair), out)?;
    let [swap, rollback] = [run.verification.swap, run.verification.rollback]
        .map(|v| format!("{} of {}", count(v.verified), count(v.live)));
    row(
        "live tasks whose state is as it must be",
        [swap, rollback, "none: the state is lost".to_owned()],
        out,
    )?;
    let delays = [run.swap, run.rollback, run.detach_attach];
    let quiet = run.baseline;
    let name = |of: &str, us: f64| {
        format!(
            "wake-up delay of a thread that sleeps 1 ms at a time, {of} ({} where nothing happens)",
            delay(us)
        )
    };
    row(&name("p99.9", quiet.p999_us), delays.map(|window| delay(window.p999_us)), out)?;
    row(&name("max", quiet.max_us), delays.map(|window| delay(window.max_us)), out)
}

/// How long a machine has no scheduler, with and without this project.
fn without_scheduler(run: &Published, out: &mut String) -> fmt::Result {
    let (loader, swap) = (&run.loader, &run.swap);
    let gap = |way: &Way| match (way.seen.gap_ns, way.seen.fair_max) {
        (0, 0) => "never without a scheduler, and no task in the fair class".to_owned(),
        (gap, most) => {
            format!("no scheduler for {}, and up to {} tasks in the fair class", duration(gap), count(most))
        }
    };
    writeln!(
        out,
        "\nFrom {} to {} as scx_loader does it, beside {} threads: {}. `scx-upgrade swap` from {} to {}: {}.",
        loader.from,
        loader.to,
        count(u64::from(run.threads)),
        gap(loader),
        swap.from,
        swap.to,
        gap(swap),
    )
}

/// What each context switch pays for the host.
fn added_by_the_host(policy: &PolicyInstructions, out: &mut String) -> fmt::Result {
    write!(
        out,
        "\nThe host costs instructions at each context switch: {} for {} attached directly, {} ({:+.1} %) in the host",
        instruction(policy.direct),
        policy.policy,
        instruction(policy.hosted),
        policy.added_percent(policy.hosted)
    )?;
    match policy.lean {
        Some(lean) => writeln!(
            out,
            ", {} ({:+.1} %) in a host that has only the ops that its policies use (`run --minimal-ops`).",
            instruction(lean),
            policy.added_percent(lean)
        ),
        None => writeln!(out, "."),
    }
}

/// The rows of the specification: figures of [`render`] that stand beside what is promised.
pub fn specification(bench: &Bench) -> String {
    let source = format!("docs/benchmarks.md; `{}`", bench.command);
    let mut rows = Vec::new();
    let mut of_run = |what: &str, run: &ByThreads, figure: String| {
        rows.push((format!("{what}, {} threads", count(u64::from(run.threads))), figure));
    };
    let mut runs: Vec<_> = bench.by_threads.iter().collect();
    runs.sort_by_key(|run| run.threads);
    let ends = [runs.first(), runs.last().filter(|_| runs.len() > 1)];
    for run in ends.into_iter().flatten() {
        of_run("commit", run, duration(run.commit_ns));
        of_run("sweep in a swap that adds columns", run, duration(run.sweep_ns));
        of_run("detach and attach", run, duration(run.reattach_ns()));
    }
    if let Some(run) = runs.last() {
        let [none, swap] = [run.baseline, run.swap].map(|window| delay(window.p999_us));
        of_run(
            "wake-up delay, p99.9, in a window with a swap, and in one with none",
            run,
            format!("{swap}, {none}"),
        );
    }
    for run in &bench.published {
        let what = "without a scheduler in a switch as scx_loader does it, and in a swap";
        let [loader, swap] = [&run.loader, &run.swap].map(|way| duration(way.seen.gap_ns));
        rows.push((
            format!("{what}, {} threads", count(u64::from(run.threads))),
            format!("{loader}, {swap}"),
        ));
    }
    for policy in bench.instructions.iter().flat_map(|counted| &counted.policies) {
        let hosts = [("the host", Some(policy.hosted)), ("a lean host", policy.lean)];
        for (host, hosted) in hosts.into_iter().filter_map(|(host, hosted)| Some((host, hosted?))) {
            let what = format!("{host} over direct attach, per context switch, {}", policy.policy);
            rows.push((what, format!("{:+.1} % instructions", policy.added_percent(hosted))));
        }
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = head("what", ["figure", "where, and how"].map(str::to_owned), &mut out);
    for (what, figure) in rows {
        let _ = row(&what, [figure, source.clone()], &mut out);
    }
    out
}

/// Each column is one run with the same threads.
fn times(runs: &[ByThreads], out: &mut String) -> fmt::Result {
    let columns = runs.iter().map(|run| format!("{} threads", count(u64::from(run.threads))));
    head("", columns, out)?;
    type Cell = fn(&ByThreads) -> String;
    let rows: [(&str, Cell); 10] = [
        ("swap: the commit, one store", |run| duration(run.commit_ns)),
        ("swap: the sweep over all tasks, while they run", |run| duration(run.sweep_ns)),
        ("swap: all of it, with load and verifier", |run| duration(run.swap_total_ns)),
        ("rollback: the commit", |run| duration(run.rollback_commit_ns)),
        ("rollback: all of it", |run| duration(run.rollback_total_ns)),
        ("**detach and attach**, the kernel's own way, without load and verifier", |run| {
            duration(run.reattach_ns())
        }),
        ("detach and attach as an operator has it, with load and verifier", |run| {
            run.reattach_total_ns.map(duration).unwrap_or_default()
        }),
        ("most tasks seen in the fair class: swap, rollback", |run| {
            format!("{}, {}", fair(run.swap_watch), fair(run.rollback_watch))
        }),
        ("the same: detach and attach", |run| fair(run.detach_attach_watch)),
        ("live tasks whose state is verified: after the swap, after the rollback", |run| {
            let [swap, rollback] = [run.verification.swap, run.verification.rollback]
                .map(|v| format!("{} of {}", count(v.verified), count(v.live)));
            format!("{swap}; {rollback}")
        }),
    ];
    for (name, cell) in rows {
        let cells: Vec<_> = runs.iter().map(cell).collect();
        // Results of an earlier version lack what it did not measure.
        if cells.iter().any(|cell| !cell.is_empty()) {
            row(name, cells, out)?;
        }
    }
    Ok(())
}

/// The run with the most threads.
fn delays(bench: &Bench, out: &mut String) -> fmt::Result {
    let Some(run) = bench.by_threads.iter().max_by_key(|run| run.threads) else { return Ok(()) };
    writeln!(
        out,
        "\nWake-up delay of a thread that sleeps 1 ms at a time beside {} others, in windows of {} s:",
        count(u64::from(run.threads)),
        bench.window_s
    )?;
    windows(run, out)
}

/// By a clock that counts instructions.
fn counted_delays(run: &ByThreads, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\nThe same beside {} others by a clock that counts instructions, each as four nanoseconds, on two CPUs that the emulator \
         runs in turns. The same build gives the same figures, whatever else the computer does:",
        count(u64::from(run.threads))
    )?;
    windows(run, out)
}

/// The windows of a run, and what is to be said of them.
fn windows(run: &ByThreads, out: &mut String) -> fmt::Result {
    let windows = [
        ("nothing happens", run.baseline),
        ("swap", run.swap),
        ("rollback", run.rollback),
        ("detach and attach", run.detach_attach),
    ];
    head("window", ["p50", "p99", "p99.9", "max"].map(str::to_owned), out)?;
    for (name, window) in windows {
        let Window { p50_us, p99_us, p999_us, max_us, .. } = window;
        let spread = |us: f64, of: Spread| match window.windows {
            0 | 1 => delay(us),
            _ => format!("{} ({} to {})", delay(us), delay(of.least), delay(of.most)),
        };
        let (p999, max) = (spread(p999_us, window.p999_spread_us), spread(max_us, window.max_spread_us));
        row(name, [delay(p50_us), delay(p99_us), p999, max], out)?;
    }
    let counts = windows.map(|(_, window)| window.windows);
    if counts.iter().any(|windows| *windows > 1) {
        let [baseline, others @ ..] = counts;
        let others = others.into_iter().max().unwrap_or_default();
        writeln!(
            out,
            "\nMedians of {baseline} windows in which nothing happens and of {others} of each other kind, in turn; in brackets the \
             least and the largest."
        )?;
    }
    let again: u64 = windows.iter().map(|(_, window)| window.measured_again).sum();
    if again > 0 {
        writeln!(out, "\nThe machine stood still in {again} more windows, which were measured again.")?;
    }
    for (name, window) in windows.iter().filter(|(_, window)| window.stood_still > 0) {
        writeln!(
            out,
            "\nThe machine stood still in every attempt at {} of the windows \"{name}\", for up to {}: what these show is not \
             the scheduler alone.",
            window.stood_still,
            delay(window.control_max_us)
        )?;
    }
    Ok(())
}

fn published(runs: &[Published], out: &mut String) -> fmt::Result {
    let Some(first) = runs.first() else { return Ok(()) };
    writeln!(
        out,
        "\nFrom one scheduler to another as scx_loader does it (interrupt {}, wait for its end, start {}), and `scx-upgrade \
         swap` from {} to {}:",
        first.loader.from, first.loader.to, first.swap.from, first.swap.to
    )?;
    let columns = runs.iter().flat_map(|run| {
        let threads = count(u64::from(run.threads));
        [format!("scx_loader's way, {threads} threads"), format!("swap, {threads}")]
    });
    head("", columns, out)?;
    type Cell = fn(&Way) -> String;
    let rows: [(&str, Cell); 6] = [
        ("no scheduler for", |way| duration(way.seen.gap_ns)),
        ("most tasks seen in the fair class", |way| count(way.seen.fair_max)),
        ("until the new one runs, with its load and verifier", |way| duration(way.total_ns)),
        ("wake-up delay, p99.9 (with nothing happening)", |way| {
            format!("{} ({})", delay(way.window.p999_us), delay(way.baseline.p999_us))
        }),
        ("wake-up delay, max (with nothing happening)", |way| {
            format!("{} ({})", delay(way.window.max_us), delay(way.baseline.max_us))
        }),
        ("schedulers that the kernel attached", |way| count(way.seen.attached)),
    ];
    for (name, cell) in rows {
        row(name, runs.iter().flat_map(|run| [cell(&run.loader), cell(&run.swap)]), out)?;
    }
    Ok(())
}

fn instructions(counted: &Instructions, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\nInstructions per context switch, of two threads that hand a byte to and fro over two pipes, system calls and \
         wake-up included; counted on one CPU, not timed. A lean host (`run --minimal-ops`) has those ops only that its policies use:"
    )?;
    let columns = ["attached directly", "in the host", "in a lean host"].map(str::to_owned);
    head("policy", columns, out)?;
    row(
        "none: the kernel's default scheduler",
        [instruction(counted.default), String::new(), String::new()],
        out,
    )?;
    for policy in &counted.policies {
        let with = |hosted: f64| format!("{} ({:+.1} %)", instruction(hosted), policy.added_percent(hosted));
        let lean = policy.lean.map(with).unwrap_or_default();
        row(&policy.policy, [instruction(policy.direct), with(policy.hosted), lean], out)?;
    }
    Ok(())
}

fn head(first: &str, columns: impl IntoIterator<Item = String>, out: &mut String) -> fmt::Result {
    let columns: Vec<_> = columns.into_iter().collect();
    writeln!(out)?;
    row(first, columns.iter().cloned(), out)?;
    row("---", columns.iter().map(|_| "---".to_owned()), out)
}

fn row(first: &str, cells: impl IntoIterator<Item = String>, out: &mut String) -> fmt::Result {
    write!(out, "|")?;
    for cell in std::iter::once(first.to_owned()).chain(cells) {
        if cell.is_empty() { write!(out, " |")? } else { write!(out, " {cell} |")? }
    }
    writeln!(out)
}

fn fair(watch: Watch) -> String {
    count(watch.fair_max)
}

fn instruction(count_of: f64) -> String {
    // Instructions of one switch are few thousand: no digits are lost.
    count(count_of.round() as u64)
}

fn delay(us: f64) -> String {
    duration((us * 1_000.0).round() as u64)
}

/// Nanoseconds in the unit that reads best.
pub fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..10_000 => format!("{ns} ns"),
        10_000..1_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// A number with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::result::sample;
    use super::*;

    #[test]
    fn durations_and_counts() {
        for (ns, text) in [
            (0, "0"),
            (701, "701 ns"),
            (9_999, "9999 ns"),
            (210_400, "210 us"),
            (70_240_000, "70.2 ms"),
            (1_131_700_000, "1.13 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (40_072, "40,072"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn every_part_is_shown() {
        let text = render(&sample());
        for line in [
            "`cargo xtask bench --threads 100,2000` on Linux 7.3.4, 2 CPUs, **emulated**",
            "| | 100 threads | 2,000 threads |",
            "| swap: the commit, one store | 330 ns | 701 ns |",
            "| **detach and attach**, the kernel's own way, without load and verifier | 200.0 ms | 1.40 s |",
            "| most tasks seen in the fair class: swap, rollback | 0, 0 | 0, 0 |",
            "| live tasks whose state is verified: after the swap, after the rollback | 110 of 110; 109 of 109 |",
            "beside 2,000 others, in windows of 20 s:",
            "| swap | 120 us | 2.0 ms | 4.0 ms | 8.0 ms |",
            "| no scheduler for | 1.50 s | 0 | 1.50 s | 0 |",
            "| wake-up delay, max (with nothing happening) | 80.0 ms (10.0 ms) |",
            "| scx_mini | 8,000 | 8,400 (+5.0 %) | 8,080 (+1.0 %) |",
            "| none: the kernel's default scheduler | 13,546 | | |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn rounds_show_their_spread_and_what_was_measured_again() {
        let mut bench = sample();
        let run = bench.by_threads.last_mut().unwrap();
        run.reattach_total_ns = Some(2_500_000_000);
        run.baseline.windows = 9;
        let spread = Spread { least: 3_000.0, most: 5_000.0 };
        run.swap = Window {
            windows: 3,
            p999_spread_us: spread,
            max_spread_us: spread,
            measured_again: 2,
            ..run.swap
        };
        (run.rollback.stood_still, run.rollback.control_max_us) = (1, 120_000.0);
        bench.counted = Some(run.clone());
        let text = render(&bench);
        for line in [
            "| detach and attach as an operator has it, with load and verifier | | 2.50 s |",
            "| swap | 120 us | 2.0 ms | 4.0 ms (3.0 ms to 5.0 ms) | 8.0 ms (3.0 ms to 5.0 ms) |",
            "Medians of 9 windows in which nothing happens and of 3 of each other kind",
            "The machine stood still in 2 more windows, which were measured again.",
            "every attempt at 1 of the windows \"rollback\", for up to 120.0 ms",
            "by a clock that counts instructions, each as four nanoseconds",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        let plain = render(&sample());
        for word in ["Medians", "stood still", "as an operator has it", "four nanoseconds"] {
            assert!(!plain.contains(word), "{word} is in\n{plain}");
        }
    }

    #[test]
    fn the_summary_has_the_run_with_the_most_threads() {
        let mut bench = sample();
        let text = summary(&bench);
        for line in [
            "`cargo xtask bench --threads 100,2000` on Linux 7.3.4, 2 CPUs, **emulated**",
            "| beside 2,000 threads | swap | rollback | detach and attach |",
            "1.40 s, without load and verifier |",
            "| most tasks seen in the fair class | 0 | 0 |",
            "no scheduler for 1.50 s",
            "never without a scheduler, and no task in the fair class",
            "8,000 for scx_mini attached directly, 8,400 (+5.0 %) in the host, 8,080 (+1.0 %)",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("100 threads |"), "{text}");
        bench.by_threads.last_mut().unwrap().reattach_total_ns = Some(2_500_000_000);
        assert!(summary(&bench).contains("2.50 s, with load and verifier |"));
        let bench = Bench { by_threads: Vec::new(), published: Vec::new(), instructions: None, ..bench };
        assert_eq!(summary(&bench).lines().count(), 1);
    }

    /// The specification has figures of the book's tables only.
    #[test]
    fn the_specification_quotes_the_table() {
        let (rows, table) = (specification(&sample()), render(&sample()));
        let figures: Vec<_> = rows.lines().skip(3).map(|row| row.split(" | ").nth(1).unwrap()).collect();
        assert_eq!(figures.len(), 13, "{rows}");
        for figure in figures.iter().flat_map(|figure| figure.split(", ")) {
            let figure = figure.trim_end_matches(" instructions");
            assert!(table.contains(figure), "{figure} is not in\n{table}");
        }
    }

    /// Every row of a table has as many cells as its head.
    #[test]
    fn tables_are_whole() {
        let text = [render(&sample()), summary(&sample())].join("\n");
        for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let cells: Vec<_> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.len() > 2 && cells.iter().all(|n| *n == cells[0]), "{table}");
        }
    }

    #[test]
    fn a_part_that_was_not_measured_is_left_out() {
        let bench = Bench { by_threads: Vec::new(), published: Vec::new(), ..sample() };
        let text = render(&bench);
        assert!(
            text.contains("scx_mini") && !text.contains("commit") && !text.contains("scx_loader"),
            "{text}"
        );
    }
}

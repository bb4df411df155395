//! Reading the guest kernel's console: does it say that the kernel itself came to harm?

/// One way in which a kernel says that something is wrong with it.
#[derive(Debug)]
pub struct Fault {
    /// What it is called in messages.
    pub name: &'static str,
    /// A line that has all of these is one.
    pub marks: &'static [&'static str],
}

/// [`Fault::name`] of a warning.
const WARNING: &str = "kernel warning";

/// Everything that fails a run of the lab, the worst first. [`KNOWN_WARNINGS`] are exempt.
///
/// Not here, because a run may well bring them about on purpose: lines of `sched_ext:` itself, such as the one that reports
/// that a scheduler was ejected; user programs that crash (`segfault at`, `traps:`); the out-of-memory killer, which shows in
/// the status of its victim.
pub const FAULTS: &[Fault] = &[
    Fault { name: "kernel panic", marks: &["Kernel panic - not syncing"] },
    Fault { name: "soft lockup", marks: &["BUG: soft lockup"] },
    Fault { name: "hard lockup", marks: &["hard LOCKUP"] },
    Fault { name: "RCU stall", marks: &["rcu: INFO: rcu_", "stall"] },
    Fault { name: "RCU stall", marks: &["rcu: INFO: rcu_", "expedited"] },
    Fault { name: "kernel BUG", marks: &["kernel BUG at "] },
    Fault { name: "kernel BUG", marks: &["BUG: "] },
    Fault { name: "kernel oops", marks: &["Oops: "] },
    Fault { name: "memory error", marks: &["KASAN: "] },
    Fault { name: "undefined behaviour", marks: &["UBSAN: "] },
    // "WARNING: CPU: 0 PID: 1 at FILE:LINE" up to 6.18, "WARNING: FILE:LINE at FUNCTION, CPU#0: NAME/PID" since.
    Fault { name: WARNING, marks: &["WARNING: CPU: ", " PID: "] },
    Fault { name: WARNING, marks: &["WARNING: ", " at ", "CPU#"] },
];

/// A kernel warning that the kernel causes by itself, without any fault of a scheduler.
#[derive(Debug)]
pub struct KnownWarning {
    /// The function that warns.
    pub function: &'static str,
    /// The state of sched_ext that the report names: the warning is known in this state only.
    pub state: &'static str,
    /// Why the warning is not a scheduler's fault.
    pub why: &'static str,
}

/// Warnings that do not fail a run. Each is known by its function and by the state of sched_ext: the same warning in another
/// state is a fault.
pub const KNOWN_WARNINGS: &[KnownWarning] = &[KnownWarning {
    function: "put_prev_task_scx",
    state: "enabling",
    why: "the kernel warns here when a CPU goes idle while its previous task is runnable in the class ext and the scheduler has \
          no SCX_OPS_ENQ_LAST. While sched_ext is enabled, the class of a running task can change to ext after \
          balance_one() looked at it. Schedulers that are attached directly see the same warning \
          (https://github.com/sched-ext/scx/issues/3662)",
}];

/// A fault that was found in a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// [`Fault::name`].
    pub name: &'static str,
    /// The line that says it, without its time stamp.
    pub line: String,
}

/// What a console says of the kernel's health.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The worst fault, and of equally bad ones the first.
    pub fault: Option<Found>,
    /// Known warnings ([`KNOWN_WARNINGS`]): the line, and why it is no fault.
    pub known: Vec<(String, &'static str)>,
}

/// Looks for faults and known warnings in the text of a console.
#[must_use]
pub fn scan(text: &str) -> Scan {
    let lines: Vec<&str> = text.lines().map(strip_time).collect();
    let (mut worst, mut known): (Option<(usize, &str)>, _) = (None, Vec::new());
    for (at, &line) in lines.iter().enumerate() {
        if line.starts_with("sched_ext: ") || line.starts_with("traps: ") {
            continue;
        }
        let rank = FAULTS.iter().position(|fault| fault.marks.iter().all(|mark| line.contains(mark)));
        let Some(rank) = rank else { continue };
        if FAULTS[rank].name == WARNING
            && let Some(warning) = known_warning(line, &lines[at + 1..])
        {
            known.push((line.to_owned(), warning.why));
        } else if worst.is_none_or(|(known, _)| rank < known) {
            worst = Some((rank, line));
        }
    }
    let fault = worst.map(|(rank, line)| Found { name: FAULTS[rank].name, line: line.to_owned() });
    Scan { fault, known }
}

/// The known warning that a line and the rest of its report are. The kernel ends each report with `---[ end trace ... ]---`; a
/// report without that end, or without a line on sched_ext, is not known.
fn known_warning(line: &str, rest: &[&str]) -> Option<&'static KnownWarning> {
    let end = rest.iter().position(|line| line.starts_with("---[ end trace "))?;
    let report = &rest[..end];
    // Another report that begins before this one's end belongs to something else.
    if report.iter().any(|line| line.contains("------------[ cut here ]") || line.contains("WARNING: ")) {
        return None;
    }
    // "Sched_ext: NAME (enabling+all), task: runnable_at=-4ms"
    let state = report
        .iter()
        .find_map(|line| line.strip_prefix("Sched_ext: ")?.split_once(" (")?.1.split_once(')'))?
        .0;
    let state = state.split('+').next().unwrap_or_default();
    KNOWN_WARNINGS.iter().find(|known| {
        let named = |word: &str| word.split(['+', '.', ',']).next() == Some(known.function);
        line.split_whitespace().any(named) && state == known.state
    })
}

/// Did the kernel meet a breakpoint that it had set itself and taken away again? While it changes its own code, it puts one
/// there for the other CPUs to meet (`smp_text_poke_batch_finish()`, arch/x86/kernel/alternative.c). An emulator that gives
/// each CPU a thread may have one run code that was translated before, after the kernel has seen to it that none can. Nothing
/// else in a kernel runs into one.
#[must_use]
pub fn is_the_emulators(console: &[u8]) -> bool {
    String::from_utf8_lossy(console).contains("Oops: int3: 0000 [#1]")
}

/// The last `count` lines of a console, indented by two blanks, for a message.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "  (nothing on the console)".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The line without `[   12.345678] ` (and `[  T123] `) in front.
fn strip_time(line: &str) -> &str {
    let mut rest = line.trim();
    while let Some(after) = rest.strip_prefix('[')
        && let Some((stamp, text)) = after.split_once(']')
        && stamp.chars().all(|c| c.is_ascii_digit() || " .TC".contains(c))
    {
        rest = text.trim_start();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<&'static str> {
        scan(text).fault.map(|found| found.name)
    }

    #[test]
    fn faults_are_known_by_their_lines() {
        let cases = [
            ("[    3.1] Kernel panic - not syncing: sysrq triggered crash", "kernel panic"),
            ("[   30.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]", "soft lockup"),
            ("[   30.1][  T12] watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1", "hard lockup"),
            ("[   21.2] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"),
            ("[   21.2] rcu: INFO: rcu_sched self-detected stall on CPU", "RCU stall"),
            ("[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008", "kernel BUG"),
            ("[    1.0] kernel BUG at kernel/sched/core.c:1!", "kernel BUG"),
            ("[    1.0] Oops: int3: 0000 [#1] SMP", "kernel oops"),
            ("[    1.0] WARNING: CPU: 0 PID: 12 at kernel/sched/ext.c:100 f+0x1/0x2", "kernel warning"),
            ("[    1.0] WARNING: kernel/sched/ext.c:100 at f+0x1/0x2, CPU#0: demo/12", "kernel warning"),
        ];
        for (line, expected) in cases {
            assert_eq!(name(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_a_test_may_bring_about_is_no_fault() {
        let fine = [
            "[    9.1] sched_ext: BPF scheduler \"host\" disabled (runnable task stall)",
            "[    9.1] sched_ext: host: BUG: the policy said so",
            "[    9.1] traps: probe[12] general protection fault ip:1 sp:2 error:0 Oops: ",
            "[    9.1] probe[12]: segfault at 0 ip 1 sp 2 error 4",
            "[    0.1] clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable",
            "",
        ];
        for line in fine {
            assert_eq!(scan(line), Scan::default(), "{line}");
        }
    }

    #[test]
    fn the_worst_line_wins_and_of_those_the_first() {
        let text = "[ 1.0] WARNING: CPU: 0 PID: 1 at a\n[ 2.0] Oops: 1\n[ 2.1] Oops: 2\n[ 3.0] done\n";
        assert_eq!(scan(text).fault, Some(Found { name: "kernel oops", line: "Oops: 1".to_owned() }));
    }

    /// A report as Linux 7.3.4 prints it. `state`: as the report names it.
    fn report(function: &str, state: &str) -> String {
        format!(
            "[  812.1] ------------[ cut here ]------------\n\
             [  812.1] !(sch->ops.flags & SCX_OPS_ENQ_LAST)\n\
             [  812.1] WARNING: kernel/sched/ext/ext.c:3254 at {function}+0x3bd/0x470, CPU#1: kworker/1:3/858\n\
             [  812.1] Modules linked in:\n\
             [  812.1] CPU: 1 UID: 0 PID: 858 Comm: kworker/1:3 Not tainted 7.3.4\n\
             [  812.1] Sched_ext: scx_upgrade ({state}), task: runnable_at=-4ms\n\
             [  812.1] RIP: 0010:{function}+0x3bd/0x470\n\
             [  812.1]  __schedule+0x1/0x2\n\
             [  812.1] ---[ end trace 0000000000000000 ]---\n"
        )
    }

    #[test]
    fn a_known_warning_is_told_and_is_no_fault() {
        let scanned = scan(&report("put_prev_task_scx", "enabling+all"));
        assert_eq!(scanned.fault, None);
        let [(line, why)] = &scanned.known[..] else { panic!("{scanned:?}") };
        assert!(
            line.starts_with("WARNING: kernel/sched/ext/ext.c:3254 at put_prev_task_scx+") && !why.is_empty()
        );
        // As kernels up to 6.18 word it, and as clang names the function with link-time optimisation.
        let older = report("x", "enabling").replace(
            "WARNING: kernel/sched/ext/ext.c:3254 at x+0x3bd/0x470, CPU#1: kworker/1:3/858",
            "WARNING: CPU: 1 PID: 858 at kernel/sched/ext.c:3254 put_prev_task_scx.llvm.1059+0x3bd/0x470",
        );
        let scanned = scan(&older);
        assert_eq!((scanned.fault, scanned.known.len()), (None, 1), "{older}");
    }

    #[test]
    fn the_same_warning_at_another_time_or_place_is_a_fault() {
        let known = report("put_prev_task_scx", "enabling+all");
        let mut others = vec![
            report("put_prev_task_scx", "enabled+all"),
            report("put_prev_task_scx", "disabling"),
            report("put_prev_task_scx_other", "enabling+all"),
            report("pick_task_scx", "enabling+all"),
            // The report is cut off, says nothing of sched_ext, or has another in the middle.
            known.replace("---[ end trace", "---[ end"),
            known.replace("Sched_ext: ", "Sched: "),
            known.replace("[  812.1]  __schedule+0x1/0x2\n", &report("put_prev_task_scx", "enabled+all")),
        ];
        others.push(format!("{known}{}", report("pick_task_scx", "enabling+all")));
        for other in others {
            assert_eq!(name(&other), Some(WARNING), "{other}");
        }
        // A worse one beside it is found.
        let worse = format!("{known}[  813.0] Oops: 1\n");
        assert_eq!((name(&worse), scan(&worse).known.len()), (Some("kernel oops"), 1));
    }

    #[test]
    fn the_tail_is_short_and_indented() {
        assert_eq!(tail("a\r\n\r\nb\nc\n", 2), "  b\n  c");
        assert_eq!(tail("\n", 2), "  (nothing on the console)");
    }
}

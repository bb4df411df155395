//! Reading the guest kernel's console: does it say that the kernel itself came to harm?

/// One way in which a kernel says that something is wrong with it.
#[derive(Debug)]
pub struct Fault {
    /// What it is called in messages.
    pub name: &'static str,
    /// A line that has all of these is one.
    pub marks: &'static [&'static str],
}

/// Everything that fails a run of the lab, the worst first.
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
    Fault { name: "kernel warning", marks: &["WARNING: CPU: ", " PID: "] },
    Fault { name: "kernel warning", marks: &["WARNING: ", " at ", "CPU#"] },
];

/// A fault that was found in a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// [`Fault::name`].
    pub name: &'static str,
    /// The line that says it, without its time stamp.
    pub line: String,
}

/// The worst fault in the text of a console, and of those the first.
#[must_use]
pub fn scan(text: &str) -> Option<Found> {
    let mut worst: Option<(usize, &str)> = None;
    for line in text.lines().map(strip_time) {
        if line.starts_with("sched_ext: ") || line.starts_with("traps: ") {
            continue;
        }
        let rank = FAULTS.iter().position(|fault| fault.marks.iter().all(|mark| line.contains(mark)));
        if let Some(rank) = rank
            && worst.is_none_or(|(known, _)| rank < known)
        {
            worst = Some((rank, line));
        }
    }
    worst.map(|(rank, line)| Found { name: FAULTS[rank].name, line: line.to_owned() })
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
        scan(text).map(|found| found.name)
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
            assert_eq!(scan(line), None, "{line}");
        }
    }

    #[test]
    fn the_worst_line_wins_and_of_those_the_first() {
        let text = "[ 1.0] WARNING: CPU: 0 PID: 1 at a\n[ 2.0] Oops: 1\n[ 2.1] Oops: 2\n[ 3.0] done\n";
        assert_eq!(scan(text), Some(Found { name: "kernel oops", line: "Oops: 1".to_owned() }));
    }

    #[test]
    fn the_tail_is_short_and_indented() {
        assert_eq!(tail("a\r\n\r\nb\nc\n", 2), "  b\n  c");
        assert_eq!(tail("\n", 2), "  (nothing on the console)");
    }
}

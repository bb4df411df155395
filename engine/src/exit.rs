//! The exit codes of `scx-upgrade` and of policies' binaries, in one place. The documentation lists the same; a test below compares.

/// How a command ended, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed before anything changed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No policy runs.
    NothingRunning = 3,
    /// State that cannot be carried, or a reattach that was not allowed.
    Incompatible = 4,
    /// The kernel runs the default scheduler.
    DefaultScheduler = 5,
    /// A snapshot that cannot be used.
    Snapshot = 6,
    /// Bad in its probation.
    RolledBack = 7,
    /// The commit is done, and a later step failed.
    AfterCommit = 8,
    /// Not a policy that may run here.
    NotTrusted = 9,
    /// A signal ended the command before the commit.
    Interrupted = 10,
    /// What is asked for runs already.
    AlreadyRunning = 77,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Exit; 12] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NothingRunning,
        Exit::Incompatible,
        Exit::DefaultScheduler,
        Exit::Snapshot,
        Exit::RolledBack,
        Exit::AfterCommit,
        Exit::NotTrusted,
        Exit::Interrupted,
        Exit::AlreadyRunning,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in a few words for help and documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed, and what ran before still runs",
            Exit::Usage => "wrong usage",
            Exit::NothingRunning => "nothing is running",
            Exit::Incompatible => "the state cannot be carried, or only by a reattach, which was not allowed",
            Exit::DefaultScheduler => "failed, and tasks are on the default scheduler",
            Exit::Snapshot => "a snapshot cannot be read, written or used",
            Exit::RolledBack => "the new policy was bad in its probation and is rolled back",
            Exit::AfterCommit => "the new policy runs, and a step after the commit failed",
            Exit::NotTrusted => "the policy may not run on this machine",
            Exit::Interrupted => "interrupted by a signal before the commit, and what ran before still runs",
            Exit::AlreadyRunning => "what is asked for is what runs",
        }
    }

    /// All codes in one sentence.
    pub fn list() -> String {
        let each = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.meaning()));
        format!("Exit codes: {}.", each.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in the first column of a table under a heading that has `exit code` or `code` in its first column.
    fn rows(chapter: &str) -> Vec<u8> {
        let mut lines =
            chapter.lines().skip_while(|l| !l.starts_with("| exit code |") && !l.starts_with("| code |"));
        lines.next();
        let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').nth(1).unwrap().trim().parse().unwrap()).collect()
    }

    #[test]
    fn the_documentation_lists_every_exit_code() {
        let all = Exit::ALL.map(Exit::code);
        assert_eq!(rows(include_str!("../../docs/operator.md")), all);
        assert_eq!(rows(include_str!("../../docs/troubleshooting.md")), all);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let readme = words(include_str!("../../README.md"));
        assert!(readme.contains(&Exit::list()), "the README does not say: {}", Exit::list());
    }
}

//! Counting test results in the text that Rust's test harness prints.

use std::{fmt, time::Duration};

/// Counts of tests, summed over any number of test programs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// How many programs gave a result.
    pub programs: usize,
    /// How long each test took, where one ran at a time: from the end of the one before it. Empty without [`Tally::feed_at`].
    pub tests: Vec<(String, Duration)>,
    /// How long each program took, from the end of the one before it. Empty without [`Tally::feed_at`].
    pub suites: Vec<Duration>,
    /// The line that is not complete yet.
    partial: Vec<u8>,
    /// The time of the last piece of text, if times are wanted.
    now: Option<Duration>,
    /// When the running test and the running program began.
    test_began: Duration,
    suite_began: Duration,
    /// The test whose line has begun and whose result has not come: it printed something in between.
    open: Option<String>,
}

impl Tally {
    /// Takes the next piece of the text, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.line(&String::from_utf8_lossy(&line));
            }
        }
    }

    /// As [`Tally::feed`], of programs that run one test at a time, with the time at which the text came: how long tests and
    /// programs took is noted as well. The first program is taken to begin at the time of the first piece.
    pub fn feed_at(&mut self, bytes: &[u8], now: Duration) {
        if self.now.is_none() {
            (self.test_began, self.suite_began) = (now, now);
        }
        self.now = Some(now);
        self.feed(bytes);
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.programs += other.programs;
        self.tests.extend_from_slice(&other.tests);
        self.suites.extend_from_slice(&other.suites);
    }

    /// Notes when a test begins and ends: `test NAME ... ok`, or `test NAME ... ` with something that the test printed and a
    /// later line `ok`.
    fn time_test(&mut self, line: &str, now: Duration) {
        let line = line.trim_end();
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.test_began = now;
        } else if let Some((name, rest)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            self.end_test(now);
            self.open = Some(name.to_owned());
            if ["ok", "FAILED"].iter().any(|end| rest.ends_with(end)) {
                self.end_test(now);
            } else if rest.starts_with("ignored") {
                self.open = None;
            }
        } else if ["ok", "FAILED"].contains(&line) || line.starts_with("test result: ") {
            self.end_test(now);
        }
    }

    fn end_test(&mut self, now: Duration) {
        if let Some(name) = self.open.take() {
            self.tests.push((name, now.saturating_sub(self.test_began)));
            self.test_began = now;
        }
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
    fn line(&mut self, line: &str) {
        if let Some(now) = self.now {
            self.time_test(line, now);
        }
        let Some(at) = line.find("test result: ") else { return };
        let count = |what: &str| {
            let before = line[at..].split(what).next().filter(|before| before.len() < line[at..].len())?;
            before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()
        };
        if let (Some(passed), Some(failed)) = (count(" passed;"), count(" failed;")) {
            self.passed += passed;
            self.failed += failed;
            self.programs += 1;
            if let Some(now) = self.now {
                self.suites.push(now.saturating_sub(self.suite_began));
                self.suite_began = now;
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "running 3 tests\ntest a ... ok\n\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
        a line that says passed; and failed;\ntest result: odd\n\
        test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.5s\n";

    #[test]
    fn results_are_summed_wherever_the_text_is_cut() {
        for size in [1, 7, 4096] {
            let mut tally = Tally::default();
            TEXT.as_bytes().chunks(size).for_each(|piece| tally.feed(piece));
            assert_eq!((tally.passed, tally.failed, tally.programs), (13, 2, 2), "pieces of {size}");
            assert_eq!(tally.to_string(), "13 passed, 2 failed");
        }
    }

    #[test]
    fn tests_and_programs_are_timed() {
        let s = Duration::from_secs;
        let mut tally = Tally::default();
        for (at, text) in [
            (10, "running 4 tests\ntest first ... "),
            (13, "ok\ntest second ... under /bin/x: Seen\n"),
            (14, "more that it printed\n"),
            (20, "ok\ntest third ... ignored, not here\ntest fourth ... "),
            (21, "FAILED\n\nfailures:\n---- fourth ----\ntest ... oddly worded\n"),
            (22, "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured\n"),
            (23, "running 1 test\n"),
            (30, "test fifth ... cut off by a result\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n"),
        ] {
            tally.feed_at(text.as_bytes(), s(at));
        }
        let names = ["first", "second", "fourth", "fifth"].map(str::to_owned);
        let took = [s(3), s(7), s(1), s(7)];
        assert_eq!(tally.tests, names.into_iter().zip(took).collect::<Vec<_>>());
        assert_eq!(tally.suites, [s(12), s(8)]);
        let mut untimed = Tally::default();
        untimed.feed(b"test first ... ok\ntest result: ok. 1 passed; 0 failed;\n");
        assert!(untimed.tests.is_empty() && untimed.suites.is_empty() && untimed.programs == 1);
    }

    #[test]
    fn tallies_add_up() {
        let mut sum = Tally { passed: 1, failed: 1, programs: 1, ..Tally::default() };
        sum.add(&sum.clone());
        assert_eq!((sum.passed, sum.failed, sum.programs), (2, 2, 2));
    }
}

//! Counting test results in the text that Rust's test harness prints.

use std::fmt;

/// Counts of tests, summed over any number of test programs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// How many programs gave a result.
    pub programs: usize,
    /// The line that is not complete yet.
    partial: Vec<u8>,
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

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.programs += other.programs;
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
    fn line(&mut self, line: &str) {
        let Some(at) = line.find("test result: ") else { return };
        let count = |what: &str| {
            let before = line[at..].split(what).next().filter(|before| before.len() < line[at..].len())?;
            before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()
        };
        if let (Some(passed), Some(failed)) = (count(" passed;"), count(" failed;")) {
            self.passed += passed;
            self.failed += failed;
            self.programs += 1;
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
    fn tallies_add_up() {
        let mut sum = Tally { passed: 1, failed: 1, programs: 1, ..Tally::default() };
        sum.add(&sum.clone());
        assert_eq!((sum.passed, sum.failed, sum.programs), (2, 2, 2));
    }
}

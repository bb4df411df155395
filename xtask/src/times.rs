//! Where the time of a long command went: its parts, the suites of each, and the slowest tests.

use std::{cmp::Reverse, fmt, time::Duration};

/// How many of the slowest tests are named.
const SLOWEST: usize = 25;
/// A suite that took less is left out of the list.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// One part: a step, or a machine that ran suites.
#[derive(Debug, Default, Clone)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// What ran beside it, if anything: its time is then not its own.
    pub beside: Option<String>,
    /// The suites and how long each took.
    pub suites: Vec<(String, Duration)>,
    /// The tests and how long each took.
    pub tests: Vec<(String, Duration)>,
}

/// All parts, in the order in which they ended.
#[derive(Debug, Default)]
pub struct Times(pub Vec<Part>);

impl Times {
    /// The slowest tests of all parts, the slowest first, each with its part.
    fn slowest(&self) -> Vec<(&str, &str, Duration)> {
        let mut all: Vec<(&str, &str, Duration)> = Vec::new();
        for part in &self.0 {
            all.extend(part.tests.iter().map(|(test, took)| (test.as_str(), part.name.as_str(), *took)));
        }
        all.sort_by_key(|(_, _, took)| Reverse(*took));
        all.truncate(SLOWEST);
        all
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Where the time went, in seconds:")?;
        for part in &self.0 {
            write!(f, "{:7.1}  {}", part.took.as_secs_f64(), part.name)?;
            match &part.beside {
                Some(other) => writeln!(f, " (beside {other})")?,
                None => writeln!(f)?,
            }
            for (suite, took) in part.suites.iter().filter(|(_, took)| *took >= WORTH_A_LINE) {
                writeln!(f, "{:15.1}  {suite}", took.as_secs_f64())?;
            }
        }
        let slowest = self.slowest();
        if !slowest.is_empty() {
            writeln!(f, "The slowest tests, in seconds:")?;
        }
        for (test, part, took) in slowest {
            writeln!(f, "{:7.1}  {test} ({part})", took.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(of: &[(&str, u64)]) -> Vec<(String, Duration)> {
        of.iter().map(|(name, s)| ((*name).to_owned(), Duration::from_secs(*s))).collect()
    }

    #[test]
    fn parts_suites_and_the_slowest_tests_are_named() {
        let lab = |name: &str, beside: Option<&str>, suites, tests| Part {
            name: name.to_owned(),
            took: Duration::from_millis(100_250),
            beside: beside.map(str::to_owned),
            suites: seconds(suites),
            tests: seconds(tests),
        };
        let times = Times(vec![
            Part { name: "lint".to_owned(), took: Duration::from_secs(60), ..Part::default() },
            lab("7.3", None, &[("churn", 70), ("quick", 1)], &[("a_hundred_swaps", 70), ("short", 1)]),
            lab("7.0", Some("6.18"), &[("killed", 80)], &[("killed_swap", 80)]),
        ]);
        let text = times.to_string();
        let expected = [
            "   60.0  lint\n",
            "  100.2  7.3\n           70.0  churn\n",
            "  100.2  7.0 (beside 6.18)\n",
            "   80.0  killed_swap (7.0)\n   70.0  a_hundred_swaps (7.3)\n",
        ];
        for line in expected {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("quick"), "{text}");
    }

    #[test]
    fn only_so_many_tests_are_named() {
        let tests = (0..100).map(|n| (format!("test{n}"), Duration::from_secs(n))).collect();
        let times = Times(vec![Part { name: "x".to_owned(), tests, ..Part::default() }]);
        let slowest = times.slowest();
        assert_eq!((slowest.len(), slowest[0].0, slowest[SLOWEST - 1].0), (SLOWEST, "test99", "test75"));
    }
}

//! Windows of several rounds, and which of them count.
//!
//! A window in which the machine stood still ([`STOOD_STILL_US`]) is measured again, up to a number of attempts. What counts is the
//! first window in which the machine ran, or else the one in which it stood still for the shortest time. Of the windows that
//! count, one for each round, [`summary`] gives medians and spread.

use serde::Serialize;

use crate::probe::Window;

/// A window in which a control thread ([`crate::probe::Control`]) was later than this is measured again, microseconds. A window with
/// nothing happening has a wake-up delay of some 5 ms at p99, emulated.
pub const STOOD_STILL_US: f64 = 10_000.0;

/// A window as it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// Wake-up delays.
    pub window: Window,
    /// The longest that a control thread was late, microseconds.
    pub control_us: f64,
}

impl Attempt {
    /// Whether the machine stood still.
    pub fn stood_still(&self) -> bool {
        self.control_us > STOOD_STILL_US
    }
}

/// Whether to measure once more after these attempts, of at most so many.
pub fn again(attempts: &[Attempt], at_most: usize) -> bool {
    attempts.len() < at_most && attempts.iter().all(Attempt::stood_still)
}

/// The attempt that counts.
pub fn counts(attempts: &[Attempt]) -> Option<&Attempt> {
    let ran = attempts.iter().find(|attempt| !attempt.stood_still());
    ran.or_else(|| attempts.iter().min_by(|a, b| a.control_us.total_cmp(&b.control_us)))
}

/// The least and the largest value of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

/// Windows of one kind over all rounds: medians, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Samples of all windows that count.
    pub samples: usize,
    /// Median of the windows' medians.
    pub p50_us: f64,
    /// Median of their 99th percentiles.
    pub p99_us: f64,
    /// Median of their 99.9th percentiles.
    pub p999_us: f64,
    /// Median of their longest delays.
    pub max_us: f64,
    /// How many windows count.
    pub windows: usize,
    /// Least and largest 99.9th percentile of a window.
    pub p999_spread_us: Spread,
    /// Least and largest of the longest delays.
    pub max_spread_us: Spread,
    /// Windows that were measured again, because the machine stood still in them.
    pub measured_again: usize,
    /// Windows that count although the machine stood still in them: so it did in every attempt.
    pub stood_still: usize,
    /// The longest that a control thread was late in a window that counts.
    pub control_max_us: f64,
}

/// Sums up windows, each with its attempts. `None` where there is none.
pub fn summary<'a>(windows: impl IntoIterator<Item = &'a [Attempt]>) -> Option<Summary> {
    let (mut counted, mut measured_again) = (Vec::new(), 0);
    for attempts in windows {
        counted.push(counts(attempts)?);
        measured_again += attempts.len() - 1;
    }
    let of = |figure: fn(&Window) -> f64| counted.iter().map(|a| figure(&a.window)).collect::<Vec<_>>();
    let (p999, max) = (of(|w| w.p999_us), of(|w| w.max_us));
    Some(Summary {
        samples: counted.iter().map(|a| a.window.samples).sum(),
        p50_us: median(of(|w| w.p50_us))?,
        p99_us: median(of(|w| w.p99_us))?,
        p999_spread_us: spread(&p999),
        p999_us: median(p999)?,
        max_spread_us: spread(&max),
        max_us: median(max)?,
        windows: counted.len(),
        measured_again,
        stood_still: counted.iter().filter(|a| a.stood_still()).count(),
        control_max_us: counted.iter().map(|a| a.control_us).fold(0.0, f64::max),
    })
}

/// The median; of an even number the mean of the two in the middle. `None` where there is none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[values.len() / 2 - 1], upper) })
}

fn spread(values: &[f64]) -> Spread {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    Spread {
        least: if least.is_finite() { least } else { 0.0 },
        most: values.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window whose longest delay is so many milliseconds, and its other figures a part of that.
    fn attempt(max_ms: f64, control_ms: f64) -> Attempt {
        let max_us = max_ms * 1_000.0;
        let window = Window {
            samples: 10,
            p50_us: max_us / 100.0,
            p99_us: max_us / 4.0,
            p999_us: max_us / 2.0,
            max_us,
            ..Window::empty(0, 1)
        };
        Attempt { window, control_us: control_ms * 1_000.0 }
    }

    #[test]
    fn a_window_in_which_the_machine_stood_still_is_measured_again() {
        let (still, ran) = (attempt(900.0, 880.0), attempt(20.0, 3.0));
        assert!(again(&[], 3), "it is measured once");
        assert!(again(std::slice::from_ref(&still), 3));
        assert!(!again(&[still.clone(), ran.clone()], 3));
        assert!(!again(&[still.clone(), still.clone(), still.clone()], 3), "it ends");
        assert!(!again(&[ran], 3));
        // A long delay while the machine ran is the scheduler's: it counts.
        assert!(!again(&[attempt(900.0, 9.9)], 3));
    }

    #[test]
    fn the_first_undisturbed_window_counts_or_else_the_least_disturbed() {
        let (worst, bad, ran) = (attempt(900.0, 880.0), attempt(50.0, 30.0), attempt(20.0, 3.0));
        let counted = |attempts: &[Attempt]| counts(attempts).unwrap().window.max_us;
        assert_eq!(counted(&[worst.clone(), ran.clone()]), 20_000.0);
        assert_eq!(counted(&[worst.clone(), bad, worst]), 50_000.0);
        // Not the one with the shortest delay.
        assert_eq!(counted(&[attempt(40.0, 2.0), ran]), 40_000.0);
        assert!(counts(&[]).is_none());
    }

    /// One stall of the machine in one round changes neither medians nor what is said of the scheduler.
    #[test]
    fn medians_of_rounds_with_their_spread() {
        let rounds = [
            vec![attempt(20.0, 3.0)],
            vec![attempt(900.0, 880.0), attempt(24.0, 2.0)],
            vec![attempt(900.0, 880.0), attempt(300.0, 200.0)],
        ];
        let summary = summary(rounds.iter().map(Vec::as_slice)).unwrap();
        assert_eq!((summary.windows, summary.measured_again, summary.stood_still), (3, 2, 1));
        assert_eq!((summary.p999_us, summary.max_us, summary.samples), (12_000.0, 24_000.0, 30));
        assert_eq!(summary.p999_spread_us, Spread { least: 10_000.0, most: 150_000.0 });
        assert_eq!(summary.max_spread_us, Spread { least: 20_000.0, most: 300_000.0 });
        assert_eq!(summary.control_max_us, 200_000.0);
        assert!(super::summary([]).is_none());
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}

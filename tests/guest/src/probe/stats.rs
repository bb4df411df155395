//! The samples of a window and their percentiles.

use serde::Serialize;

/// One target and how late it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When the thread was to wake, `CLOCK_MONOTONIC` in nanoseconds.
    pub target_ns: u64,
    /// How much later it did, in nanoseconds.
    pub delay_ns: u64,
}

/// What the probe saw in a stretch of time. Delays are in microseconds; all are 0 when there is no sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Targets that fell due: those met and those missed.
    pub samples: usize,
    /// How many of `samples` were missed because the thread was still late for an earlier one.
    pub missed: usize,
    /// Wakings that are in no window, because too many came between two calls. 0 in a sound measurement.
    pub lost: u64,
    /// Threads that had not woken when the window gave up on them. 0 unless something is badly wrong.
    pub stuck: usize,
    /// Median delay.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest delay.
    pub max_us: f64,
    /// Start of the window, `CLOCK_MONOTONIC` in nanoseconds.
    pub from_ns: u64,
    /// End of the window, likewise.
    pub to_ns: u64,
    /// Every sample, by target (missed ones too). Left out of the JSON.
    #[serde(skip)]
    pub raw: Vec<Sample>,
}

impl Window {
    pub(crate) fn empty(from_ns: u64, to_ns: u64) -> Self {
        Self {
            samples: 0,
            missed: 0,
            lost: 0,
            stuck: 0,
            p50_us: 0.0,
            p99_us: 0.0,
            p999_us: 0.0,
            max_us: 0.0,
            from_ns,
            to_ns,
            raw: Vec::new(),
        }
    }

    /// What several windows saw, as one; from the begin of the first to the end of the last. `None` where there is none.
    pub fn pooled(windows: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut windows = windows.into_iter();
        let mut all = windows.next()?;
        for window in windows {
            all.missed += window.missed;
            all.lost += window.lost;
            all.stuck += window.stuck;
            all.to_ns = window.to_ns;
            all.raw.extend(window.raw);
        }
        all.rank();
        Some(all)
    }

    /// Adds a waking, and a sample for every further target that passed before it.
    pub(super) fn add(&mut self, target_ns: u64, delay_ns: u64, period_ns: u64) {
        let missed = delay_ns / period_ns;
        self.missed += missed as usize;
        self.raw.extend((0..=missed).map(|late| Sample {
            target_ns: target_ns + late * period_ns,
            delay_ns: delay_ns - late * period_ns,
        }));
    }

    /// Sorts the samples and works out the figures from them.
    pub(super) fn rank(&mut self) {
        self.samples = self.raw.len();
        let mut delays: Vec<u64> = self.raw.iter().map(|sample| sample.delay_ns).collect();
        delays.sort_unstable();
        let us = |per_mille| percentile(&delays, per_mille).unwrap_or(0) as f64 / 1_000.0;
        (self.p50_us, self.p99_us, self.p999_us, self.max_us) = (us(500), us(990), us(999), us(1_000));
        self.raw.sort_unstable_by_key(|sample| sample.target_ns);
    }
}

/// The percentile by nearest rank: the smallest value that at least `per_mille` thousandths of `sorted` do not
/// exceed. Always a value that was seen; `None` when there is none.
fn percentile(sorted: &[u64], per_mille: usize) -> Option<u64> {
    let rank = (sorted.len() * per_mille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let values: Vec<u64> = (1..=1_000).collect();
        assert_eq!(percentile(&values, 500), Some(500));
        assert_eq!(percentile(&values, 990), Some(990));
        assert_eq!(percentile(&values, 999), Some(999));
        assert_eq!(percentile(&values, 1_000), Some(1_000));
        assert_eq!(percentile(&[15, 20, 35, 40, 50], 300), Some(20));
        assert_eq!(percentile(&[15, 20, 35, 40, 50], 500), Some(35));
        assert_eq!(percentile(&[15, 20, 35, 40, 50], 999), Some(50));
        assert_eq!(percentile(&[7], 0), Some(7));
        assert_eq!(percentile(&[], 500), None);
    }

    #[test]
    fn a_stall_counts_once_per_period_it_lasts() {
        let mut window = Window::empty(0, 100_000_000);
        for target in 1..=50 {
            window.add(target * 1_000_000, 10_000, 1_000_000);
        }
        window.add(51_000_000, 50_000_000, 1_000_000);
        window.rank();
        assert_eq!((window.samples, window.missed), (101, 50));
        assert_eq!(window.max_us, 50_000.0);
        // 51 of the 101 samples belong to the stall; without them the median would be 10 us.
        assert_eq!(window.p50_us, 10.0);
        assert_eq!(window.p99_us, 49_000.0);
        assert!(window.raw.is_sorted_by_key(|sample| sample.target_ns));
        assert_eq!(window.raw[100], Sample { target_ns: 101_000_000, delay_ns: 0 });
    }

    #[test]
    fn windows_are_pooled_by_their_samples() {
        let of = |from_ns: u64, delay_ns| {
            let mut window = Window::empty(from_ns, from_ns + 100);
            window.add(from_ns + 1, delay_ns, 1_000_000);
            window.rank();
            window
        };
        let all = Window::pooled([of(0, 2_000), of(500, 3_500_000), of(900, 1_000)]).unwrap();
        assert_eq!((all.samples, all.missed), (6, 3));
        assert_eq!((all.from_ns, all.to_ns), (0, 1_000));
        assert_eq!((all.max_us, all.p50_us), (3_500.0, 500.0));
        assert!(Window::pooled([]).is_none());
    }

    #[test]
    fn an_empty_window_has_zeros() {
        let mut window = Window::empty(1, 2);
        window.rank();
        assert_eq!((window.samples, window.p999_us, window.max_us), (0, 0.0, 0.0));
    }
}

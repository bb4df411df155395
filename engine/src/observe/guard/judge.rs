//! Whether what the guard sees is worse than what it saw before the commit. A pure function of samples.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use super::Limits;
use super::is_bad_event;
use super::sample::Sample;

/// A window with fewer wake-ups says nothing of their 99th percentile.
const ENOUGH: u64 = 20;
/// Events in one window that are never bad, however few the baseline had.
const EVENTS_FLOOR: f64 = 10.0;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The 99th percentile of the time from wake-up to running, ns.
    WakeUpDelay,
    /// The longest that a task has waited for a CPU, ns.
    LongestWait,
    /// Context switches a second.
    Throughput,
    /// Events of the kernel that tell of trouble, a second.
    KernelEvents,
    /// What the policy says of itself.
    Health,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Measure::WakeUpDelay => "wake-up delay",
            Measure::LongestWait => "longest wait",
            Measure::Throughput => "throughput",
            Measure::KernelEvents => "kernel events",
            Measure::Health => "the policy's own health check",
        })
    }
}

/// A measure that was beyond its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub measure: Measure,
    /// What was seen, in the unit of the measure.
    pub seen: f64,
    /// What the limit was.
    pub limit: f64,
    /// What was usual before the commit.
    pub usual: f64,
    /// What else there is to say: the task that waits, the event.
    pub detail: String,
    /// From the commit until it was decided, ms.
    pub after_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { measure, seen, limit, usual, detail, after_ms } = self;
        let ms = |ns: &f64| format!("{:.1} ms", ns / 1e6);
        match measure {
            Measure::WakeUpDelay => write!(
                f,
                "{measure}: 99 of 100 within {}, the limit is {}, usual were {}",
                ms(seen),
                ms(limit),
                ms(usual)
            )?,
            Measure::LongestWait => write!(
                f,
                "{measure}: {detail} has waited for {}, the limit is {}, usual were {}",
                ms(seen),
                ms(limit),
                ms(usual)
            )?,
            Measure::Throughput => write!(
                f,
                "{measure}: {seen:.0} context switches a second while tasks wait, the limit is {limit:.0}, usual were {usual:.0}"
            )?,
            Measure::KernelEvents => {
                write!(f, "{measure}: {detail} {seen:.0} times a second, the limit is {limit:.0}")?;
            }
            Measure::Health => write!(f, "{measure}: it gives the reason {detail}")?,
        }
        write!(f, "; {:.1} s after the commit", *after_ms as f64 / 1e3)
    }
}

/// Goes through samples one by one.
#[derive(Debug)]
pub struct Evaluator {
    limits: Limits,
    usual: Usual,
    /// Windows one after the other beyond the limit: of delay, of throughput, and of each bad event by its name.
    delay: u32,
    throughput: u32,
    events: BTreeMap<String, u32>,
}

/// What the baseline showed.
#[derive(Debug, Clone, Default)]
struct Usual {
    median_delay: u64,
    worst_delay: u64,
    longest_wait: u64,
    least_switches: u64,
    most_events: BTreeMap<String, u64>,
}

impl Evaluator {
    /// One that goes by what these windows showed.
    pub fn new(limits: Limits, baseline: Vec<Sample>) -> Evaluator {
        let mut delays: Vec<_> = baseline.iter().filter_map(delay).collect();
        delays.sort_unstable();
        let mut usual = Usual {
            median_delay: delays.get(delays.len() / 2).copied().unwrap_or(0),
            worst_delay: delays.last().copied().unwrap_or(0),
            longest_wait: baseline.iter().map(|s| s.longest_wait_ns).max().unwrap_or(0),
            least_switches: baseline.iter().map(|s| s.switches).min().unwrap_or(0),
            most_events: BTreeMap::new(),
        };
        for (name, count) in baseline.iter().flat_map(|sample| &sample.events) {
            let most = usual.most_events.entry(name.clone()).or_default();
            *most = (*count).max(*most);
        }
        Evaluator { limits, usual, delay: 0, throughput: 0, events: BTreeMap::new() }
    }

    /// The 99th percentile of the wake-up delay beyond which a window counts as bad, ns.
    pub fn delay_limit(&self) -> u64 {
        let by_factor = self.usual.median_delay as f64 * self.limits.delay_factor;
        let floor = self.limits.delay_floor.as_nanos() as u64;
        (by_factor as u64).max(self.usual.worst_delay).max(floor)
    }

    /// The next window after the commit: is it the one too many? What is said of `after_ms` is for the caller to fill in.
    pub fn next(&mut self, sample: &Sample) -> Option<Violation> {
        let seconds = self.limits.window.as_secs_f64();
        let breach = |measure, seen, limit, usual, detail: String| {
            Some(Violation { measure, seen, limit, usual, detail, after_ms: 0 })
        };
        if sample.unhealthy != 0 {
            return breach(Measure::Health, 1.0, 0.0, 0.0, sample.unhealthy.to_string());
        }
        let wait_limit = (self.limits.longest_wait.as_nanos() as u64).max(2 * self.usual.longest_wait);
        if sample.longest_wait_ns > wait_limit {
            let (seen, usual) = (sample.longest_wait_ns as f64, self.usual.longest_wait as f64);
            let who = format!("task {}", sample.longest_pid);
            return breach(Measure::LongestWait, seen, wait_limit as f64, usual, who);
        }
        let limit = self.delay_limit();
        match delay(sample) {
            Some(delay) if delay > limit => self.delay += 1,
            Some(_) => self.delay = 0,
            // So few wake-ups say nothing, either way.
            None => {}
        }
        if self.delay >= self.limits.in_a_row {
            let seen = delay(sample).unwrap_or(limit) as f64;
            return breach(
                Measure::WakeUpDelay,
                seen,
                limit as f64,
                self.usual.median_delay as f64,
                String::new(),
            );
        }
        let limit = self.usual.least_switches as f64 * self.limits.throughput;
        let fell = (sample.switches as f64) < limit && sample.waiting > 0;
        self.throughput = if fell { self.throughput + 1 } else { 0 };
        if self.throughput >= self.limits.in_a_row {
            let [seen, limit, usual] =
                [sample.switches as f64, limit, self.usual.least_switches as f64].map(|n| n / seconds);
            return breach(Measure::Throughput, seen, limit, usual, String::new());
        }
        for (name, count) in sample.events.iter().filter(|(name, _)| is_bad_event(name)) {
            let usual = self.usual.most_events.get(name).copied().unwrap_or(0) as f64;
            let limit = usual * self.limits.events_factor + EVENTS_FLOOR;
            let seen = *count as f64;
            let in_a_row = self.events.entry(name.clone()).or_default();
            *in_a_row = if seen > limit { *in_a_row + 1 } else { 0 };
            if *in_a_row >= self.limits.in_a_row {
                let [seen, limit, usual] = [seen, limit, usual].map(|n| n / seconds);
                return breach(Measure::KernelEvents, seen, limit, usual, name.clone());
            }
        }
        None
    }
}

/// The 99th percentile, where there are enough wake-ups for one.
fn delay(sample: &Sample) -> Option<u64> {
    (sample.delays.count() >= ENOUGH).then(|| sample.delays.percentile(0.99))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A window of a load whose 99th percentile is about this, us.
    fn window(us: u64) -> Sample {
        let mut sample = Sample { switches: 5_000, waiting: 3, ..Sample::default() };
        (0..980).for_each(|_| sample.delays.add(us * 100));
        (0..20).for_each(|_| sample.delays.add(us * 1000));
        sample
    }

    fn judge(baseline: &[u64]) -> Evaluator {
        Evaluator::new(Limits::default(), baseline.iter().map(|us| window(*us)).collect())
    }

    /// In which window, from 1, it was decided, and by what.
    fn decided(judge: &mut Evaluator, windows: impl IntoIterator<Item = Sample>) -> Option<(usize, Measure)> {
        windows.into_iter().enumerate().find_map(|(n, s)| judge.next(&s).map(|b| (n + 1, b.measure)))
    }

    #[test]
    fn a_delay_that_grew_is_bad_and_one_bad_window_is_not() {
        let usual = [1000, 1100, 900, 1500];
        let bad = std::iter::repeat_with(|| window(6000)).take(60);
        assert_eq!(decided(&mut judge(&usual), bad), Some((8, Measure::WakeUpDelay)));
        let hiccups = (0..60).map(|n| window(if n % 5 == 0 { 100_000 } else { 1000 }));
        assert_eq!(decided(&mut judge(&usual), hiccups), None);
        // Below the floor it is never bad.
        assert_eq!(decided(&mut judge(&[10, 10]), (0..60).map(|_| window(200))), None);
    }

    #[test]
    fn a_task_that_waits_too_long_is_bad_at_once() {
        let waits = |s: u64| Sample { longest_wait_ns: s * 1_000_000_000, longest_pid: 7, ..window(1000) };
        assert_eq!(decided(&mut judge(&[1000]), [waits(9), waits(11)]), Some((2, Measure::LongestWait)));
        // Unless that is usual.
        let mut used_to_it = Evaluator::new(Limits::default(), vec![waits(8)]);
        assert_eq!(decided(&mut used_to_it, [waits(15)]), None);
        let breach = judge(&[1000]).next(&waits(11)).unwrap();
        assert!(breach.to_string().contains("task 7 has waited for 11000.0 ms"), "{breach}");
    }

    #[test]
    fn switches_that_fail_to_come_while_tasks_wait_are_bad() {
        let idle = |waiting| Sample { switches: 3, waiting, ..Sample::default() };
        assert_eq!(decided(&mut judge(&[1000]), (0..60).map(|_| idle(0))), None);
        assert_eq!(decided(&mut judge(&[1000]), (0..60).map(|_| idle(2))), Some((8, Measure::Throughput)));
    }

    #[test]
    fn events_and_the_policys_own_word_count() {
        let event = |name: &str, n| Sample { events: [(name.to_owned(), n)].into(), ..window(1000) };
        for name in ["SCX_EV_SELECT_CPU_FALLBACK", "SCX_EV_REENQ_LOCAL_REPEAT", "SCX_EV_REENQ_REPEAT"] {
            assert_eq!(decided(&mut judge(&[1000]), (0..60).map(|_| event(name, 10))), None);
            assert_eq!(
                decided(&mut judge(&[1000]), (0..60).map(|_| event(name, 1000))),
                Some((8, Measure::KernelEvents)),
                "{name}"
            );
        }
        let harmless = (0..60).map(|_| event("SCX_EV_DISPATCH_KEEP_LAST", 1000));
        assert_eq!(decided(&mut judge(&[1000]), harmless), None);
        let ill = Sample { unhealthy: 3, ..window(1000) };
        assert_eq!(decided(&mut judge(&[1000]), [ill]), Some((1, Measure::Health)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        /// A swap that changes nothing, under a load of any noise: what comes after is drawn as what came before.
        #[test]
        fn noise_alone_is_not_bad(
            windows in proptest::collection::vec((0_u32..20).prop_map(|n| 100 << (n / 2)), 160),
        ) {
            let (before, after) = windows.split_at(40);
            let mut judge = judge(before);
            prop_assert_eq!(decided(&mut judge, after.iter().map(|us| window(*us))), None);
        }
    }
}

//! What was counted in one window.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// Classes of [`Delays`]: as `GUARD_CLASSES`.
pub const CLASSES: usize = 256;

/// Wake-up delays by class: four to each doubling of nanoseconds, as `guard_class()` has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays(Vec<u64>);

impl Default for Delays {
    fn default() -> Self {
        Delays(vec![0; CLASSES])
    }
}

impl Delays {
    /// From counts by class.
    pub fn new(counts: &[u64]) -> Delays {
        let mut delays = Delays::default();
        delays.0.iter_mut().zip(counts).for_each(|(own, count)| *own = *count);
        delays
    }

    /// The class of a delay of so many nanoseconds.
    pub fn class(ns: u64) -> usize {
        if ns < 4 {
            return ns as usize;
        }
        let log = 63 - ns.leading_zeros() as usize;
        log << 2 | (ns >> (log - 2) & 3) as usize
    }

    /// The smallest delay of a class, ns.
    pub fn least(class: usize) -> u64 {
        match class {
            0..4 => class as u64,
            // Between 4 and 8 there is no class: four to each doubling begin at 4 ns.
            4..8 => 4,
            _ => {
                let (log, part) = (class as u32 / 4, class as u64 % 4);
                (1_u64 << log.min(63)).saturating_add(part << (log - 2))
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The delay that `part` of all do not exceed, as the least of its class, ns. 0 if there are none.
    pub fn percentile(&self, part: f64) -> u64 {
        let wanted = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let class = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        class.map_or(0, Delays::least)
    }

    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &Delays) -> Delays {
        Delays(self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// These and others.
    pub fn and(&self, others: &Delays) -> Delays {
        Delays(self.0.iter().zip(&others.0).map(|(these, others)| these + others).collect())
    }

    /// Add one, for who makes samples.
    pub fn add(&mut self, ns: u64) {
        self.0[Delays::class(ns).min(CLASSES - 1)] += 1;
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// From wake-up to running, of the tasks that began to run in the window.
    pub delays: Delays,
    /// Switches to a task that is not idle.
    pub switches: u64,
    /// How long the one waits that waits longest at the end of the window, ns; 0 if none does.
    pub longest_wait_ns: u64,
    /// Who that is, 0 for no one.
    pub longest_pid: u32,
    /// How many wait at the end of the window.
    pub waiting: u32,
    /// The kernel's counters of events, by name: how much each grew.
    pub events: BTreeMap<String, u64>,
    /// What the policy says of itself: 0, or its own reason.
    pub unhealthy: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_order_and_a_quarter_apart() {
        let mut last = 0;
        for ns in [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 1_000, 1_500, 2_000, 1_000_000, u64::MAX / 2, u64::MAX] {
            let class = Delays::class(ns);
            assert!(class >= last && class < CLASSES, "{ns}: {class}");
            assert!(Delays::least(class) <= ns, "{ns}: {}", Delays::least(class));
            if ns >= 8 && class + 1 < CLASSES {
                assert!(Delays::least(class + 1) > ns, "{ns}: {}", Delays::least(class + 1));
                assert!(Delays::least(class) as f64 >= 0.79 * ns as f64, "{ns}");
            }
            last = class;
        }
    }

    #[test]
    fn a_percentile_is_that_of_a_sorted_list_but_for_its_class() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(0.99), 0);
        (1..=1000).for_each(|us| delays.add(us * 1000));
        for (part, us) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            assert_eq!(delays.percentile(part), Delays::least(Delays::class(us * 1000)));
        }
        let before = delays.clone();
        delays.add(5);
        assert_eq!(delays.since(&before).count(), 1);
        assert_eq!(delays.and(&before).count(), 2001);
    }
}

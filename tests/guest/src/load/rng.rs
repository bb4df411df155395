//! Random numbers that are the same in every run: `SplitMix64`.

/// A generator. One per thread, seeded by the load's seed and the thread's kind and number.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// The generator of stream `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `mean - mean / part` up to `mean + mean / part`.
    pub(super) fn around(&mut self, mean: u64, part: u64) -> u64 {
        let reach = mean / part;
        mean - reach + self.next() % (2 * reach + 1)
    }

    /// A number from 0 up to and not including `end`, which is 1 or more.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_range_and_differs_by_stream() {
        let mut one = Rng::new(1, 1);
        let mut two = Rng::new(1, 2);
        assert_ne!(one.next(), two.next());
        let mut again = Rng::new(1, 2);
        again.next();
        assert_eq!(again.next(), two.next());
        let drawn: Vec<u64> = (0..10_000).map(|_| one.around(1_000, 2)).collect();
        assert!(drawn.iter().all(|value| (500..=1_500).contains(value)));
        let mean = drawn.iter().sum::<u64>() / 10_000;
        assert!((980..1_020).contains(&mean), "{mean}");
        assert_eq!(one.around(0, 2), 0);
    }
}

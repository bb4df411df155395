//! What holds of a column of a task that ran, whatever it did.

use std::borrow::Cow;

use state_migrate::{Placed, Type};

/// One rule for a column, or for each element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It never goes back, as a clock or a count that may wrap: the difference, signed, is not negative.
    NeverBack,
    /// It moves by no more than the task had turns on the CPU.
    ByTurns,
    /// It lies in between, both included.
    Within(u64, u64),
}

/// What is known of a column before.
#[derive(Clone, Copy, Debug)]
pub enum Past<'a> {
    /// Nothing: the task was born since.
    None,
    /// Its value, and the most turns on the CPU that the task can have had since.
    Value {
        /// The column's bytes.
        bytes: &'a [u8],
        /// Turns.
        turns: u64,
    },
}

/// The shortest slice that `scx_fair` gives, to tasks of little weight.
const FAIR_SLICE_NS: u64 = 1_000_000;

/// Rules by column name. Of a column that is not named nothing is asserted.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<(Cow<'static, str>, Rule)>,
    /// The shortest slice that the policy gives, in nanoseconds: how often a turn can end without a switch.
    pub slice_ns: u64,
}

impl Rules {
    /// No rules.
    pub fn none() -> Self {
        Self { rules: Vec::new(), slice_ns: u64::MAX }
    }

    /// Those of both versions of `scx_fair`, which has run for `age_ns`: no turn on the CPU was longer.
    pub fn scx_fair(age_ns: u64) -> Self {
        Self { slice_ns: FAIR_SLICE_NS, ..Self::none() }
            .with("vtime", Rule::NeverBack)
            .with("last_run_at", Rule::NeverBack)
            .with("last_woke_at", Rule::NeverBack)
            .with("avg_runtime", Rule::Within(0, age_ns))
            // At most one wake-up a nanosecond.
            .with("wakeup_freq", Rule::Within(0, 1_000_000_000))
            .with("nr_runs", Rule::NeverBack)
            .with("nr_runs", Rule::ByTurns)
            .with("credit_pct", Rule::Within(50, 200))
            .with("credit_pct", Rule::ByTurns)
            .with("recent_us", Rule::Within(0, age_ns / 1_000))
    }

    /// One rule more.
    #[must_use]
    pub fn with(mut self, column: impl Into<Cow<'static, str>>, rule: Rule) -> Self {
        self.rules.push((column.into(), rule));
        self
    }

    /// Check a column's value by all of its rules.
    ///
    /// # Errors
    /// The rule that does not hold, in words that follow the column's name.
    pub fn check(&self, column: &Placed, past: Past<'_>, after: &[u8]) -> Result<(), String> {
        let size = element(&column.ty);
        for (_, rule) in self.rules.iter().filter(|(name, _)| *name == column.name) {
            for (index, new) in after.chunks(size).enumerate() {
                let old = match past {
                    Past::None => None,
                    Past::Value { bytes, turns } => {
                        bytes.chunks(size).nth(index).map(|old| (number(old), turns))
                    }
                };
                rule.check(old, number(new), size)?;
            }
        }
        Ok(())
    }
}

impl Rule {
    /// `old`: the value before and the turns since.
    fn check(self, old: Option<(u64, u64)>, new: u64, size: usize) -> Result<(), String> {
        let moved = |old: u64| difference(old, new, size);
        match (self, old) {
            (Self::NeverBack, Some((old, _))) if moved(old) < 0 => Err("went back".to_owned()),
            (Self::ByTurns, Some((old, turns))) if moved(old).unsigned_abs() > turns => {
                Err(format!("moved by {} in {turns} turns at most", moved(old)))
            }
            (Self::Within(least, most), _) if !(least..=most).contains(&new) => {
                Err(format!("is not within {least} and {most}"))
            }
            _ => Ok(()),
        }
    }
}

/// Size in bytes of what a column is, or is an array of; 8 at most.
fn element(ty: &Type) -> usize {
    match ty {
        Type::Array { elem, .. } => element(elem),
        other => other.size().clamp(1, 8) as usize,
    }
}

/// The number in up to eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// `new - old` in as many bytes, signed.
fn difference(old: u64, new: u64, size: usize) -> i64 {
    let shift = 64 - 8 * size.clamp(1, 8) as u32;
    (new.wrapping_sub(old) << shift) as i64 >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, ty: Type) -> Placed {
        Placed {
            id: 0,
            name: name.to_owned(),
            ty,
            default: None,
            unit: None,
            rule: state_migrate::Rule::default(),
            offset: 8,
            slots: [0].into(),
            source: None,
        }
    }

    fn u(size: u32) -> Type {
        Type::Int { size, signed: false }
    }

    #[test]
    fn a_clock_may_wrap_but_not_go_back() {
        let rules = Rules::none().with("c", Rule::NeverBack);
        let check = |old: u64, new: u64| {
            let old = old.to_le_bytes();
            rules.check(&column("c", u(8)), Past::Value { bytes: &old, turns: 0 }, &new.to_le_bytes())
        };
        assert_eq!(check(5, 5), Ok(()));
        assert_eq!(check(5, 6), Ok(()));
        assert_eq!(check(u64::MAX, 3), Ok(()));
        assert!(check(5, 4).unwrap_err().contains("went back"));
        assert!(check(3, u64::MAX).is_err());
    }

    #[test]
    fn small_integers_wrap_at_their_own_size() {
        assert_eq!(difference(0xffff_ffff, 1, 4), 2);
        assert_eq!(difference(1, 0xffff_ffff, 4), -2);
        assert_eq!(difference(0xff, 0, 1), 1);
    }

    #[test]
    fn elements_of_an_array_are_checked_one_by_one() {
        let rules = Rules::none().with("a", Rule::Within(0, 10));
        let array = column("a", Type::Array { elem: Box::new(u(4)), len: 3 });
        let bytes = |values: [u32; 3]| values.map(u32::to_le_bytes).concat();
        assert_eq!(rules.check(&array, Past::None, &bytes([0, 10, 3])), Ok(()));
        assert!(rules.check(&array, Past::None, &bytes([0, 3, 11])).is_err());
        // Of another column nothing is asserted.
        assert_eq!(rules.check(&column("b", u(8)), Past::None, &[0xff; 8]), Ok(()));
    }

    #[test]
    fn turns_limit_how_far_a_count_moves() {
        let rules = Rules::none().with("n", Rule::ByTurns);
        let check = |new: u32, turns| {
            let old = 100u32.to_le_bytes();
            rules.check(&column("n", u(4)), Past::Value { bytes: &old, turns }, &new.to_le_bytes())
        };
        assert_eq!(check(103, 3), Ok(()));
        assert_eq!(check(97, 3), Ok(()));
        assert!(check(104, 3).unwrap_err().contains("moved by 4"));
    }
}

//! Numbers of a record and what a conversion does to them, in 64 bits and a sign.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rule::{MAX_FACTOR, Scale};
use crate::types::Type;

/// What a number in a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Number {
    /// Bytes that it takes: 1, 2, 4 or 8.
    pub size: u32,
    /// Whether it can be negative.
    pub signed: bool,
    /// Whether it is a `bool`, which can be 0 and 1 only.
    pub bool: bool,
}

impl Number {
    /// The number that a type is, if it is one.
    pub fn of(ty: &Type) -> Option<Number> {
        match ty {
            Type::Int { size, signed } | Type::Enum { size, signed } => {
                Some(Number { size: *size, signed: *signed, bool: false })
            }
            Type::Bool => Some(Number { size: 1, signed: false, bool: true }),
            _ => None,
        }
    }

    /// The largest magnitude of a number that is not negative.
    pub fn max(self) -> u64 {
        if self.bool {
            return 1;
        }
        let bits = (self.size * 8).clamp(8, 64) - u32::from(self.signed);
        u64::MAX >> (64 - bits)
    }

    /// The largest magnitude of a negative number.
    pub fn max_negative(self) -> u64 {
        if self.signed { self.max() + 1 } else { 0 }
    }

    /// Whether it can hold all that `other` can.
    pub fn holds(self, other: Number) -> bool {
        self.max() >= other.max() && self.max_negative() >= other.max_negative()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bool {
            return f.write_str("bool");
        }
        write!(f, "{}{}", if self.signed { 's' } else { 'u' }, u64::from(self.size) * 8)
    }
}

/// `(v + pre) * mul / div + add`, in a sign and 64 bits of magnitude, where what goes past 2^64 - 1 stays there:
///
/// 1. load: zero- or sign-extend the bytes, and take sign and magnitude apart;
/// 2. add `pre`;
/// 3. multiply and divide, exact but for one rounding, toward zero or with `away` away from it;
/// 4. add `add`;
/// 5. store the nearest number that the destination can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Linear {
    /// Added first.
    pub pre: i64,
    /// The multiplier, of a magnitude of at most 2^31.
    pub mul: i64,
    /// The divisor, from 1 to 2^31.
    pub div: i64,
    /// Added last.
    pub add: i64,
    /// Whether a quotient that is not whole goes away from zero instead of toward it.
    pub away: bool,
}

impl Linear {
    /// Leaves a value as it is.
    pub const IDENTITY: Linear = Linear { pre: 0, mul: 1, div: 1, add: 0, away: false };

    /// A rule as declared.
    pub fn forward(scale: &Scale) -> Linear {
        Linear { pre: 0, mul: scale.mul, div: scale.div, add: scale.add, away: false }
    }

    /// A rule turned round. It rounds away from zero, because the rule itself truncates: of all values that the rule
    /// takes to the present one, this gives that of least magnitude. So a rule that loses nothing (`|a| >= b`) gives
    /// back the very value, and one that does (`|a| < b`) a value that it takes to the present one again.
    pub fn inverse(scale: &Scale) -> Option<Linear> {
        let pre = scale.add.checked_neg().filter(|_| scale.is_valid())?;
        Some(Linear { pre, mul: scale.div * scale.mul.signum(), div: scale.mul.abs(), add: 0, away: true })
    }

    /// This and then the other, in one step; `None` if no one step does it. The result is rounded once, toward zero
    /// unless both round away. What is added in between goes in front or to the end, so numbers near 2^64 may saturate
    /// where the two steps would not.
    pub fn then(&self, next: &Linear) -> Option<Linear> {
        if !self.is_valid() || !next.is_valid() {
            return None;
        }
        if *self == Linear::IDENTITY {
            return Some(*next);
        }
        if *next == Linear::IDENTITY {
            return Some(*self);
        }
        let (m1, d1) = (i128::from(self.mul), i128::from(self.div));
        let (m2, d2) = (i128::from(next.mul), i128::from(next.div));
        let (mut mul, mut div) = (m1 * m2, d1 * d2);
        let common = gcd(mul.unsigned_abs(), div.unsigned_abs());
        (mul, div) = (mul / common, div / common);
        // What is added in between goes to the front or to the end, where it is whole.
        let between = i128::from(self.add) + i128::from(next.pre);
        let (mut pre, mut add) = (i128::from(self.pre), i128::from(next.add));
        if (between * d1) % m1 == 0 {
            pre += between * d1 / m1;
        } else if (between * m2) % d2 == 0 {
            add += between * m2 / d2;
        } else {
            return None;
        }
        let whole = Linear {
            pre: pre.try_into().ok()?,
            mul: mul.try_into().ok()?,
            div: div.try_into().ok()?,
            add: add.try_into().ok()?,
            away: self.away && next.away,
        };
        whole.is_valid().then_some(whole)
    }

    /// Whether the factors are in range.
    pub fn is_valid(&self) -> bool {
        let factor = 1..=MAX_FACTOR as u64;
        factor.contains(&self.mul.unsigned_abs()) && (1..=MAX_FACTOR).contains(&self.div)
    }
}

fn gcd(a: u128, b: u128) -> i128 {
    if b == 0 { a.max(1) as i128 } else { gcd(b, a % b) }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pre {
            0 => f.write_str("v")?,
            pre => write!(f, "(v {pre:+})")?,
        }
        if self.mul != 1 {
            write!(f, " * {}", self.mul)?;
        }
        if self.div != 1 {
            write!(f, " / {}", self.div)?;
        }
        if self.add != 0 {
            write!(f, " {:+}", self.add)?;
        }
        Ok(())
    }
}

/// A number on its way: a sign and 64 bits, so that all of `u64` and of `s64` fits. Zero is not negative. What goes past
/// 2^64 - 1 in magnitude stays there. See [`Linear`] for the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) negative: bool,
    pub(super) magnitude: u64,
}

impl Value {
    /// The number in the low bytes of `raw`.
    pub(super) fn load(raw: u64, number: Number) -> Value {
        let shift = 64 - (number.size * 8).clamp(8, 64);
        if number.signed {
            let value = ((raw << shift) as i64) >> shift;
            return Value { negative: value < 0, magnitude: value.unsigned_abs() };
        }
        Value { negative: false, magnitude: (raw << shift) >> shift }
    }

    /// Adds, saturating in magnitude.
    pub(super) fn plus(self, add: i64) -> Value {
        let (negative, magnitude) = (add < 0, add.unsigned_abs());
        if self.negative == negative {
            return Value { negative, magnitude: self.magnitude.saturating_add(magnitude) };
        }
        // Signs differ: the larger magnitude gives the sign. Equal ones make zero, which is not negative.
        if self.magnitude > magnitude {
            Value { negative: self.negative, magnitude: self.magnitude - magnitude }
        } else {
            Value { negative: negative && magnitude > self.magnitude, magnitude: magnitude - self.magnitude }
        }
    }

    /// Multiplies and divides, exactly but for one rounding, saturating in magnitude. The remainder is less than
    /// 2^31, so its product with `mul` fits.
    pub(super) fn times(self, linear: &Linear) -> Value {
        let (mul, div) = (linear.mul.unsigned_abs(), linear.div.unsigned_abs().max(1));
        let rest = (self.magnitude % div).saturating_mul(mul);
        let up = u64::from(linear.away && !rest.is_multiple_of(div));
        let magnitude = (self.magnitude / div).saturating_mul(mul).saturating_add(rest / div + up);
        Value { negative: magnitude != 0 && self.negative != (linear.mul < 0), magnitude }
    }

    /// The bytes to store, in the low `number.size` bytes; those above do not count.
    pub(super) fn bits(self, number: Number) -> u64 {
        if self.negative {
            self.magnitude.min(number.max_negative()).wrapping_neg()
        } else {
            self.magnitude.min(number.max())
        }
    }

    /// All of it.
    pub(super) fn convert(self, linear: &Linear) -> Value {
        self.plus(linear.pre).times(linear).plus(linear.add)
    }
}

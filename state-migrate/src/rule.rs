//! How a column takes its value from its predecessor: the declaration tags beside a field.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The largest magnitude of a scale's multiplier and divisor: their product with a remainder fits 64 bits.
pub const MAX_FACTOR: i64 = 1 << 31;

/// What the tags beside a field say about its predecessor. Without any of them a column is its predecessor of the
/// same name, widened where needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// `scx:from=NAME`: the predecessor's name, if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `scx:scale=A/B+C`: the value is rescaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// `scx:saturate`: a value that does not fit becomes the nearest that does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub saturate: bool,
    /// `scx:convert=PROGRAM`: the author's own conversion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert: Option<Conversion>,
}

impl Rule {
    /// Whether it says where the value comes from or that it changes. Saturation alone does not: it only allows.
    pub fn derives(&self) -> bool {
        self.from.is_some() || self.scale.is_some() || self.convert.is_some()
    }

    /// Whether two columns of one name and type that have these rules are the same column.
    pub fn same(&self, other: &Rule) -> bool {
        (&self.from, &self.scale, &self.convert) == (&other.from, &other.scale, &other.convert)
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Rule::default()
    }
}

/// `new = old * mul / div + add`: the product divided exactly and truncated toward zero, as in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scale {
    /// The multiplier, not 0, of a magnitude of at most [`MAX_FACTOR`].
    pub mul: i64,
    /// The divisor, from 1 to [`MAX_FACTOR`].
    pub div: i64,
    /// Added at the end.
    pub add: i64,
}

impl Scale {
    /// Reads `A`, `A/B`, `A+C`, `A-C`, `A/B+C` or `A/B-C` of decimal or 0x integers; blanks do not count.
    pub fn parse(text: &str) -> Option<Scale> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        // The first character may be the multiplier's own sign.
        let end =
            text.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map_or(text.len(), |c| c.0);
        let (factor, add) = text.split_at(end);
        let add = match add.strip_prefix('+') {
            Some(plus) if plus.starts_with('-') => return None,
            Some(plus) => integer(plus)?,
            None if add.is_empty() => 0,
            None => integer(add)?,
        };
        let (mul, div) = factor.split_once('/').unwrap_or((factor, "1"));
        let scale = Scale {
            mul: integer(mul)?.try_into().ok()?,
            div: integer(div)?.try_into().ok()?,
            add: add.try_into().ok()?,
        };
        scale.is_valid().then_some(scale)
    }

    /// Whether the factors are in range.
    pub fn is_valid(&self) -> bool {
        self.mul != 0 && self.mul.unsigned_abs() <= MAX_FACTOR as u64 && (1..=MAX_FACTOR).contains(&self.div)
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mul)?;
        if self.div != 1 {
            write!(f, "/{}", self.div)?;
        }
        if self.add != 0 {
            write!(f, "{:+}", self.add)?;
        }
        Ok(())
    }
}

/// The author's own conversion, for what no other rule can express.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conversion {
    /// The BPF program that makes the new value of the old.
    pub program: String,
    /// `scx:inverse=PROGRAM`: the one that makes the old value of the new, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inverse: Option<String>,
}

/// A decimal or 0x integer with an optional minus.
pub(crate) fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    // `from_str_radix` takes a sign of its own, which would let `--1` and `0x-1` through.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

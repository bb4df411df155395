//! What a plan asks the host to do to each record, and the reference of how it is done.
//!
//! The interpreter in BPF is a port of this module, line by line: [`apply`] and the functions below it are the
//! meaning of a step. No step of a plan reads what another of it writes, and no two write the same byte, so the order
//! of steps and of repetitions does not count. Calls alone come last, since they find the new column's initial value in
//! place, which another step may have written.

mod apply;
mod arith;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::apply::{ApplyError, apply, apply_with};
pub use self::arith::{Linear, Number};

/// The most steps that a plan may have in one scope, each counted as [`Step::entries`].
pub const MAX_STEPS: usize = 64;

/// One step. Offsets are in bytes from the start of the record, of its header that is. Each load and store is done in
/// exactly the size given and is aligned to it: others may write the neighbouring bytes meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Store a constant.
    Store {
        /// Where to.
        to: u32,
        /// How many bytes each time: 1, 2, 4 or 8.
        size: u32,
        /// What to store; the low `size` bytes.
        value: u64,
        /// How often, at least 1.
        repeat: Repeat,
    },
    /// Copy bytes as they are.
    Copy {
        /// Where from.
        from: u32,
        /// Where to.
        to: u32,
        /// How many bytes each time: 1, 2, 4 or 8.
        size: u32,
        /// How often.
        repeat: Repeat,
    },
    /// Load a number, rescale it, bring it into the range of the destination, store it.
    Convert {
        /// Where from.
        from: u32,
        /// Where to.
        to: u32,
        /// What the number is where it comes from.
        source: Number,
        /// What it becomes.
        target: Number,
        /// How it is rescaled; [`Linear::IDENTITY`] if it is not.
        linear: Linear,
        /// How often.
        repeat: Repeat,
    },
    /// Run the author's own conversion.
    Call(Call),
}

/// A step done several times, as on the elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Repeat {
    /// How often, at least 1.
    pub count: u32,
    /// By how much `from` grows each time, in bytes.
    pub from_stride: u32,
    /// By how much `to` grows each time, in bytes.
    pub to_stride: u32,
}

impl Repeat {
    /// Just once.
    pub const ONCE: Repeat = Repeat { count: 1, from_stride: 0, to_stride: 0 };
}

/// A call of the author's own conversion.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The program's name in the object of the policy that declares the rule.
    pub program: String,
    /// The slot of that policy: the new one forwards, and on the way back it is the one that runs.
    pub slot: u32,
    /// Where the old value is.
    pub from: u32,
    /// Its size in bytes.
    pub from_size: u32,
    /// Where the new value goes. It holds the column's initial value before the call on the way forward, and what its
    /// policy left there on the way back.
    pub to: u32,
    /// Its size in bytes.
    pub to_size: u32,
}

impl Step {
    /// Where it writes first, in bytes from the start of the record.
    pub fn to(&self) -> u32 {
        match self {
            Step::Store { to, .. } | Step::Copy { to, .. } | Step::Convert { to, .. } => *to,
            Step::Call(call) => call.to,
        }
    }

    /// How many entries of the host's table of steps it takes: a call takes one for itself, two for the old value and what
    /// the new column holds, and one for the new value.
    pub fn entries(&self) -> usize {
        if matches!(self, Step::Call(_)) { 4 } else { 1 }
    }

    /// The ranges of bytes that it reads.
    pub fn reads(&self) -> Vec<std::ops::Range<u32>> {
        match self {
            Step::Store { .. } => Vec::new(),
            Step::Copy { from, size, repeat, .. } => ranges(*from, *size, repeat.count, repeat.from_stride),
            Step::Convert { from, source, repeat, .. } => {
                ranges(*from, source.size, repeat.count, repeat.from_stride)
            }
            Step::Call(call) => ranges(call.from, call.from_size, 1, 0),
        }
    }

    /// The ranges of bytes that it writes.
    pub fn writes(&self) -> Vec<std::ops::Range<u32>> {
        match self {
            Step::Store { to, size, repeat, .. } | Step::Copy { to, size, repeat, .. } => {
                ranges(*to, *size, repeat.count, repeat.to_stride)
            }
            Step::Convert { to, target, repeat, .. } => {
                ranges(*to, target.size, repeat.count, repeat.to_stride)
            }
            Step::Call(call) => ranges(call.to, call.to_size, 1, 0),
        }
    }
}

fn ranges(start: u32, size: u32, count: u32, stride: u32) -> Vec<std::ops::Range<u32>> {
    let at = |i: u32| start.saturating_add(stride.saturating_mul(i));
    (0..count).map(|i| at(i)..at(i).saturating_add(size)).collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeat = match self {
            Step::Store { to, size, value, repeat } => {
                write!(f, "store {value:#x} in {size} bytes at {to}")?;
                repeat
            }
            Step::Copy { from, to, size, repeat } => {
                write!(f, "copy {size} bytes from {from} to {to}")?;
                repeat
            }
            Step::Convert { from, to, source, target, linear, repeat } => {
                write!(f, "convert {source} at {from} to {target} at {to}")?;
                if *linear != Linear::IDENTITY {
                    write!(f, " as {linear}")?;
                }
                repeat
            }
            Step::Call(call) => {
                return write!(f, "call `{}` from {} to {}", call.program, call.from, call.to);
            }
        };
        if repeat.count > 1 { write!(f, ", {} times", repeat.count) } else { Ok(()) }
    }
}

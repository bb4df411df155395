//! The reference interpreter.

use super::arith::Value;
use super::{Call, MAX_STEPS, Number, Repeat, Step};

/// Why steps cannot be applied. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A step reaches outside the record, or is not aligned.
    #[error(
        "step {index} ({step}) is not aligned or leaves the record of {len} bytes; the plan is damaged, plan anew"
    )]
    OutOfBounds {
        /// Which step.
        index: usize,
        /// The step.
        step: Box<Step>,
        /// Size of the record.
        len: usize,
    },
    /// A size, divisor or count that no step has.
    #[error("step {index} ({step}) has a size, factor or count out of range; the plan is damaged, plan anew")]
    Malformed {
        /// Which step.
        index: usize,
        /// The step.
        step: Box<Step>,
    },
    /// There are too many.
    #[error(
        "{count} steps are more than the {MAX_STEPS} that a plan can have; the plan is damaged, plan anew"
    )]
    TooMany {
        /// How many.
        count: usize,
    },
    /// There is a call and nothing to run it.
    #[error("step {index} calls `{program}`, which cannot run here; apply it through the host")]
    Call {
        /// Which step.
        index: usize,
        /// The program.
        program: String,
    },
}

/// Does the steps to a record, its header included. A plan with calls is refused: see [`apply_with`].
pub fn apply(steps: &[Step], record: &mut [u8]) -> Result<(), ApplyError> {
    for (index, step) in steps.iter().enumerate() {
        if let Step::Call(call) = step {
            return Err(ApplyError::Call { index, program: call.program.clone() });
        }
    }
    apply_with(steps, record, |_, _, _| ())
}

/// As [`apply`]; `run` stands for the author's own conversions. It gets the call, the bytes of the old value and those
/// of the new one.
pub fn apply_with(
    steps: &[Step],
    record: &mut [u8],
    mut run: impl FnMut(&Call, &[u8], &mut [u8]),
) -> Result<(), ApplyError> {
    if steps.len() > MAX_STEPS {
        return Err(ApplyError::TooMany { count: steps.len() });
    }
    for (index, step) in steps.iter().enumerate() {
        check(index, step, record.len())?;
    }
    for step in steps {
        match step {
            Step::Store { to, size, value, repeat } => {
                for i in 0..repeat.count {
                    store(record, to + i * repeat.to_stride, *size, *value);
                }
            }
            Step::Copy { from, to, size, repeat } => {
                for i in 0..repeat.count {
                    let value = load(record, from + i * repeat.from_stride, *size);
                    store(record, to + i * repeat.to_stride, *size, value);
                }
            }
            Step::Convert { from, to, source, target, linear, repeat } => {
                for i in 0..repeat.count {
                    let raw = load(record, from + i * repeat.from_stride, source.size);
                    let value = Value::load(raw, *source).convert(linear);
                    store(record, to + i * repeat.to_stride, target.size, value.bits(*target));
                }
            }
            Step::Call(call) => {
                let at = |start: u32, size: u32| start as usize..(start + size) as usize;
                let old = record[at(call.from, call.from_size)].to_vec();
                run(call, &old, &mut record[at(call.to, call.to_size)]);
            }
        }
    }
    Ok(())
}

/// The `size` bytes at `at`, zero-extended; they are inside, as checked.
fn load(record: &[u8], at: u32, size: u32) -> u64 {
    let bytes = &record[at as usize..][..size as usize];
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Stores the low `size` bytes of `value` at `at`; they are inside, as checked.
fn store(record: &mut [u8], at: u32, size: u32, value: u64) {
    record[at as usize..][..size as usize].copy_from_slice(&value.to_le_bytes()[..size as usize]);
}

fn check(index: usize, step: &Step, len: usize) -> Result<(), ApplyError> {
    // More often than the record has bytes is never meant, and bounds the work.
    let bad_count = |r: &Repeat| r.count == 0 || r.count as usize > len;
    let bad_size = |size: u32| !matches!(size, 1 | 2 | 4 | 8);
    let bad_number = |n: &Number| bad_size(n.size) || (n.bool && (n.size != 1 || n.signed));
    let (malformed, inside) = match step {
        Step::Store { to, size, repeat, .. } => {
            (bad_size(*size) || bad_count(repeat), inside(*to, *size, repeat, repeat.to_stride, len))
        }
        Step::Copy { from, to, size, repeat } => (
            bad_size(*size) || bad_count(repeat),
            inside(*from, *size, repeat, repeat.from_stride, len)
                && inside(*to, *size, repeat, repeat.to_stride, len),
        ),
        Step::Convert { from, to, source, target, linear, repeat } => (
            bad_number(source) || bad_number(target) || !linear.is_valid() || bad_count(repeat),
            inside(*from, source.size, repeat, repeat.from_stride, len)
                && inside(*to, target.size, repeat, repeat.to_stride, len),
        ),
        Step::Call(call) => {
            let inside = |at: u32, size: u32| at.checked_add(size).is_some_and(|end| end as usize <= len);
            (false, inside(call.from, call.from_size) && inside(call.to, call.to_size))
        }
    };
    if malformed {
        return Err(ApplyError::Malformed { index, step: Box::new(step.clone()) });
    }
    if !inside {
        return Err(ApplyError::OutOfBounds { index, step: Box::new(step.clone()), len });
    }
    Ok(())
}

/// Whether all repetitions stay in the record and are aligned. `size` may be 0 here if the step is malformed.
fn inside(at: u32, size: u32, repeat: &Repeat, stride: u32, len: usize) -> bool {
    let last = u64::from(repeat.count.saturating_sub(1)) * u64::from(stride) + u64::from(at);
    let aligned = at.is_multiple_of(size.max(1)) && (repeat.count < 2 || stride.is_multiple_of(size.max(1)));
    aligned && last + u64::from(size) <= len as u64
}

//! Puts like stores together into steps.

use super::{Op, Shape};
use crate::step::{Repeat, Step};

/// The steps that do `ops`, as few as come of putting runs of like stores with equal distances together. The order
/// does not count, because no store reads what another writes.
pub(crate) fn merge(mut ops: Vec<Op>) -> Vec<Step> {
    ops.sort_unstable();
    let (mut steps, mut rest) = (Vec::new(), ops.as_slice());
    while let Some(first) = rest.first() {
        let (count, repeat) = run(rest);
        steps.push(step(first, repeat));
        rest = &rest[count..];
    }
    steps.sort_by_key(Step::to);
    steps
}

/// How many stores at the start of `ops` are alike and evenly apart.
fn run(ops: &[Op]) -> (usize, Repeat) {
    let [first, second, ..] = ops else { return (1, Repeat::ONCE) };
    let Some((to_stride, from_stride)) = apart(first, second) else { return (1, Repeat::ONCE) };
    let even = ops.windows(2).take_while(|w| apart(&w[0], &w[1]) == Some((to_stride, from_stride))).count();
    (even + 1, Repeat { count: even as u32 + 1, from_stride, to_stride })
}

/// By how much `to` and `from` grow from one store to the next, if the two are alike.
fn apart(one: &Op, next: &Op) -> Option<(u32, u32)> {
    let to = next.to.checked_sub(one.to)?;
    let from = next.from.checked_sub(one.from)?;
    (one.shape == next.shape).then_some((to, from))
}

fn step(op: &Op, repeat: Repeat) -> Step {
    let Op { shape, to, from } = *op;
    match shape {
        Shape::Store { size, value } => Step::Store { to, size, value, repeat },
        Shape::Copy { size } => Step::Copy { from, to, size, repeat },
        Shape::Convert { source, target, linear } => {
            Step::Convert { from, to, source, target, linear, repeat }
        }
    }
}

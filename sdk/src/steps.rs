//! The steps of a plan, as the host's interpreter wants them.

use state_migrate::HEADER;
use state_migrate::Linear;
use state_migrate::Number;
use state_migrate::Plan;
use state_migrate::Repeat;
use state_migrate::Scope;
use state_migrate::Step;

use crate::abi;
use crate::error::Error;
use crate::error::Result;

/// Those for the records of one scope.
///
/// # Errors
/// [`Error::NeedsProgram`] for a conversion by a program of the author's, which no host runs yet.
pub(crate) fn of(plan: &Plan, scope: Scope) -> Result<abi::Plan> {
    let mut out = abi::Plan { nr_steps: 0, reserved: 0, steps: [abi::Step::default(); abi::MAX_STEPS] };
    for (to, from) in out.steps.iter_mut().zip(plan.steps.get(&scope).into_iter().flatten()) {
        *to = step(from)?;
        out.nr_steps += 1;
    }
    Ok(out)
}

/// Records have a few kilobytes at the most, so every offset, size and count fits.
fn step(step: &Step) -> Result<abi::Step> {
    let at = |offset: u32| (offset - HEADER) as u16;
    let common = |repeat: &Repeat| abi::Step {
        count: repeat.count as u16,
        from_stride: repeat.from_stride as u16,
        to_stride: repeat.to_stride as u16,
        ..Default::default()
    };
    Ok(match step {
        Step::Store { to, size, value, repeat } => abi::Step {
            kind: abi::STEP_STORE,
            to: at(*to),
            to_size: *size as u8,
            value: *value,
            ..common(repeat)
        },
        Step::Copy { from, to, size, repeat } => abi::Step {
            kind: abi::STEP_COPY,
            from: at(*from),
            to: at(*to),
            from_size: *size as u8,
            to_size: *size as u8,
            ..common(repeat)
        },
        Step::Convert { from, to, source, target, linear, repeat } => abi::Step {
            kind: abi::STEP_CONVERT,
            flags: flags(source, target, linear),
            from: at(*from),
            to: at(*to),
            from_size: source.size as u8,
            to_size: target.size as u8,
            pre: linear.pre,
            mul: linear.mul,
            div: linear.div,
            add: linear.add,
            ..common(repeat)
        },
        Step::Call(call) => return Err(Error::NeedsProgram { program: call.program.clone() }),
    })
}

fn flags(source: &Number, target: &Number, linear: &Linear) -> u8 {
    let all = [
        (source.signed, abi::STEP_FROM_SIGNED),
        (target.signed, abi::STEP_TO_SIGNED),
        (target.bool, abi::STEP_TO_BOOL),
        (linear.away, abi::STEP_AWAY),
        (*linear != Linear::IDENTITY, abi::STEP_RESCALE),
    ];
    all.iter().filter(|(is, _)| *is).fold(0, |flags, (_, bit)| flags | bit)
}

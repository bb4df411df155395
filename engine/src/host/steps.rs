//! The steps of a plan, as the host's interpreter wants them.

use state_migrate::Call;
use state_migrate::HEADER;
use state_migrate::Linear;
use state_migrate::Number;
use state_migrate::Plan;
use state_migrate::Repeat;
use state_migrate::Scope;
use state_migrate::Step;

use crate::error::Error;
use crate::error::Result;
use crate::host::abi;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;

const _: () = assert!(abi::MAX_ARG == state_migrate::MAX_ARG as usize);

/// Those for the records of one scope. `registry` says which object has the conversions that the plan calls.
///
/// # Errors
/// [`Error::Registry`] when it does not have them.
pub(crate) fn of(plan: &Plan, scope: Scope, registry: &Registry) -> Result<abi::Plan> {
    let mut out =
        abi::Plan { nr_steps: 0, nr_call_steps: 0, caller: 0, steps: [abi::Step::default(); abi::MAX_STEPS] };
    let mut entries = Vec::new();
    for from in plan.steps.get(&scope).into_iter().flatten() {
        if let Step::Call(call) = from {
            let (caller, conversion) = conversion(call, registry)?;
            out.caller = caller.load;
            entries.extend(calls(call, conversion));
        } else {
            // A plan has its calls last.
            out.nr_steps += 1;
            entries.push(step(from));
        }
    }
    out.nr_call_steps = entries.len() as u32 - out.nr_steps;
    // No more than fit: the plan counts them, see `Step::entries`.
    for (to, from) in out.steps.iter_mut().zip(entries) {
        *to = from;
    }
    Ok(out)
}

/// The policy that has the conversion, and its number there.
fn conversion<'b>(call: &Call, registry: &'b Registry) -> Result<(&'b SlotInfo, u16)> {
    let info = u8::try_from(call.slot).ok().and_then(|slot| registry.slot(slot));
    let found = info.and_then(|info| Some((info, info.schema.conversions.get(&call.program)?.number)));
    found.ok_or_else(|| Error::Registry {
        why: format!("no policy in slot {} has the conversion {}", call.slot, call.program),
    })
}

/// Both values into the arguments, the call, the new value back into the record.
fn calls(call: &Call, conversion: u16) -> [abi::Step; 4] {
    let old = piecewise(abi::STEP_ARG, (call.from - HEADER, 0), call.from_size);
    let new = abi::MAX_ARG as u32;
    let initial = piecewise(abi::STEP_ARG, (call.to - HEADER, new), call.to_size);
    let result = piecewise(abi::STEP_RESULT, (new, call.to - HEADER), call.to_size);
    [old, initial, abi::Step { kind: abi::STEP_CALL, conversion, ..Default::default() }, result]
}

/// Moves `len` bytes in pieces as large as alignment allows, so that no neighbour is touched.
fn piecewise(kind: u8, (from, to): (u32, u32), len: u32) -> abi::Step {
    let size = [8, 4, 2].into_iter().find(|s| (from | to | len).is_multiple_of(*s)).unwrap_or(1);
    abi::Step {
        kind,
        from: from as u16,
        to: to as u16,
        from_size: size as u8,
        to_size: size as u8,
        count: (len / size) as u16,
        from_stride: size as u16,
        to_stride: size as u16,
        ..Default::default()
    }
}

/// Records have a few kilobytes at the most, so every offset, size and count fits.
fn step(step: &Step) -> abi::Step {
    let at = |offset: u32| (offset - HEADER) as u16;
    let common = |repeat: &Repeat| abi::Step {
        count: repeat.count as u16,
        from_stride: repeat.from_stride as u16,
        to_stride: repeat.to_stride as u16,
        ..Default::default()
    };
    match step {
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
        // Taken apart by `calls`.
        Step::Call(_) => abi::Step::default(),
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use state_migrate::Layout;
    use state_migrate::Signature;
    use state_migrate::Type;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::new();
        let number = Type::Int { size: 8, signed: false };
        let signature = Signature { number: 5, from: number.clone(), to: number };
        let mut info = crate::host::registry::tests::slot_info(9);
        info.schema.conversions.insert("fold".to_string(), signature);
        registry.slots[2] = Some(info);
        registry
    }

    fn plan(steps: Vec<Step>) -> Plan {
        let steps = BTreeMap::from([(Scope::Cpu, steps)]);
        Plan { layout: Layout::default(), columns: Vec::new(), steps }
    }

    fn call(program: &str) -> Step {
        Step::Call(Call {
            program: program.to_string(),
            slot: 2,
            from: 24,
            from_size: 12,
            to: 40,
            to_size: 16,
        })
    }

    #[test]
    fn a_call_is_taken_apart_and_stands_behind_the_rest() {
        let store = Step::Store { to: 40, size: 8, value: 7, repeat: Repeat::ONCE };
        let plan = of(&plan(vec![store, call("fold")]), Scope::Cpu, &registry()).unwrap();
        assert_eq!((plan.nr_steps, plan.nr_call_steps, plan.caller), (1, 4, 9));
        assert_eq!(plan.steps[0].kind, abi::STEP_STORE);
        let moved = |s: &abi::Step| {
            assert_eq!(
                (s.from_size, s.from_stride, s.to_stride),
                (s.to_size, s.to_size.into(), s.to_size.into())
            );
            (s.kind, s.from, s.to, s.to_size, s.count)
        };
        // Twelve bytes at 16 of the data go in words of four: eight would reach into the neighbour.
        assert_eq!(moved(&plan.steps[1]), (abi::STEP_ARG, 16, 0, 4, 3));
        assert_eq!(moved(&plan.steps[2]), (abi::STEP_ARG, 32, 64, 8, 2));
        assert_eq!((plan.steps[3].kind, plan.steps[3].conversion), (abi::STEP_CALL, 5));
        assert_eq!(moved(&plan.steps[4]), (abi::STEP_RESULT, 64, 32, 8, 2));
    }

    #[test]
    fn a_plan_without_calls_has_no_caller() {
        let plan = of(&plan(vec![]), Scope::Task, &registry()).unwrap();
        assert_eq!((plan.nr_steps, plan.nr_call_steps, plan.caller), (0, 0, 0));
    }

    #[test]
    fn a_conversion_that_nobody_has_is_an_error() {
        let error = of(&plan(vec![call("unfold")]), Scope::Cpu, &registry()).unwrap_err();
        assert!(matches!(error, Error::Registry { .. }), "{error}");
    }
}

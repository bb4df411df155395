//! Steps: what each does to a record, against wide integers.

use proptest::collection::vec;
use proptest::prelude::*;
use state_migrate::{
    ApplyError, Linear, MAX_STEPS, Number, Repeat, Scale, Step, Type, apply, apply_with, compile,
};

use crate::evolve::Rng;
use crate::model::{Value, chain, forward, inverse, range, read, write};

fn number() -> impl Strategy<Value = Type> {
    prop_oneof![
        1 => Just(Type::Bool),
        8 => (0u32..4, any::<bool>()).prop_map(|(s, signed)| Type::Int { size: 1 << s, signed }),
    ]
}

fn factor() -> impl Strategy<Value = i64> {
    prop_oneof![Just(1), Just(1 << 31), Just(1000), 1i64..100, 1i64..=1 << 31]
}

fn scale() -> impl Strategy<Value = Scale> {
    let add = prop_oneof![3 => Just(0), 2 => -1000i64..1000, 1 => any::<i64>(), 1 => Just(i64::MIN)];
    (factor(), any::<bool>(), factor(), add).prop_map(|(mul, negative, div, add)| Scale {
        mul: if negative { -mul } else { mul },
        div,
        add,
    })
}

/// What one conversion makes of `n`.
fn converted(n: i128, from: &Type, to: &Type, linear: Linear) -> i128 {
    let mut record = [0xaa; 24];
    write(from, &Value::Number(n), &mut record[8..]);
    let (source, target) = (Number::of(from).unwrap(), Number::of(to).unwrap());
    let step = Step::Convert { from: 8, to: 16, source, target, linear, repeat: Repeat::ONCE };
    let before = record;
    check_compiled(std::slice::from_ref(&step), &record);
    apply(&[step], &mut record).unwrap();
    assert_eq!(record[..16], before[..16]);
    assert_eq!(record[16 + to.size() as usize..], before[16 + to.size() as usize..]);
    match read(to, &record[16..]) {
        Value::Number(n) => n,
        _ => unreachable!(),
    }
}

/// The steps as instructions do to a record what the steps do.
pub fn check_compiled(steps: &[Step], record: &[u8]) {
    let mut code = compile(steps, usize::MAX).unwrap();
    code.extend(EXIT);
    let (mut expected, mut made) = (record.to_vec(), record.to_vec());
    apply(steps, &mut expected).unwrap();
    let vm = rbpf::EbpfVmRaw::new(Some(&code)).unwrap();
    vm.execute_program(&mut made).unwrap();
    assert_eq!(made, expected, "{steps:?} on {record:x?}");
}

/// `r0 = 0; exit`
const EXIT: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

fn clamp(n: i128, ty: &Type) -> i128 {
    let (min, max) = range(ty).unwrap();
    n.clamp(min, max)
}

const ONE: Repeat = Repeat::ONCE;
const U64: Number = Number { size: 8, signed: false, bool: false };
const S64: Type = Type::Int { size: 8, signed: true };

proptest! {
    #![proptest_config(crate::cases(60_000))]

    #[test]
    fn a_conversion_is_exact(from in number(), to in number(), scale in scale(), seed in any::<u64>()) {
        let n = Rng::new(seed).number(&from);
        prop_assert_eq!(converted(n, &from, &to, Linear::IDENTITY), clamp(n, &to));
        prop_assert_eq!(converted(n, &from, &to, Linear::forward(&scale)), clamp(forward(n, &scale), &to));
        match Linear::inverse(&scale) {
            Some(back) => prop_assert_eq!(converted(n, &from, &to, back), clamp(inverse(n, &scale), &to)),
            None => prop_assert_eq!(scale.add, i64::MIN),
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(10_000))]

    #[test]
    fn a_rule_turned_round_gives_the_value_back(
        mut scale in scale(),
        n in -1_000_000_000i128..1_000_000_000,
    ) {
        scale.add %= 1_000_000;
        let (there, back) = (Linear::forward(&scale), Linear::inverse(&scale).unwrap());
        let new = converted(n, &S64, &S64, there);
        let old = converted(new, &S64, &S64, back);
        if scale.mul.abs() >= scale.div {
            prop_assert_eq!(old, n, "a rule that loses nothing");
        } else {
            prop_assert_eq!(converted(old, &S64, &S64, there), new, "a value that the rule takes there again");
            prop_assert!(old.abs() <= n.abs(), "and the least");
        }
    }

    #[test]
    fn two_rules_in_one_step(
        one in scale(), turn_one in any::<bool>(),
        two in scale(), turn_two in any::<bool>(),
        n in -1_000_000i128..1_000_000,
    ) {
        let linear = |scale: &Scale, turn| if turn { Linear::inverse(scale) } else { Some(Linear::forward(scale)) };
        let both = linear(&one, turn_one).zip(linear(&two, turn_two)).and_then(|(one, two)| one.then(&two));
        let Some(both) = both else { return Ok(()) };
        prop_assert!(both.is_valid());
        let Some(may) = chain(n, &[(one, turn_one), (two, turn_two)]) else { return Ok(()) };
        let made = converted(n, &S64, &S64, both);
        // What is added at the end may have stood at the limit before.
        prop_assume!(both.add.unsigned_abs() < 1 << 61 && both.pre.unsigned_abs() < 1 << 61);
        prop_assert!(may.contains(&made), "{} of {:?}", made, may);
    }

    #[test]
    fn no_step_leaves_the_record(
        words in vec(prop_oneof![0u32..40, any::<u32>()], 9),
        kind in 0..3, mul in any::<i64>(), div in any::<i64>(), flags in any::<u8>(),
        len in 0usize..64,
    ) {
        let repeat = Repeat { count: words[0], from_stride: words[1], to_stride: words[2] };
        let (from, to, size) = (words[3], words[4], words[5] % 10);
        let number = |size, bits: u8| Number { size, signed: bits & 1 != 0, bool: bits & 2 != 0 };
        let step = match kind {
            0 => Step::Store { to, size, value: u64::MAX, repeat },
            1 => Step::Copy { from, to, size, repeat },
            _ => {
                let linear = Linear { pre: mul, mul: mul >> (flags % 64), div: div >> (flags % 64), add: div, away: flags & 4 != 0 };
                let (source, target) = (number(size, flags >> 3), number(words[6] % 10, flags >> 5));
                Step::Convert { from, to, source, target, linear, repeat }
            }
        };
        let mut record = vec![7; len];
        if apply(std::slice::from_ref(&step), &mut record).is_err() {
            prop_assert!(record.iter().all(|b| *b == 7), "{} changed something and failed", step);
        } else {
            prop_assert!(step.writes().iter().all(|w| w.end as usize <= len));
        }
        let _ = step.to_string();
    }
}

#[test]
fn repeats_stride() {
    let mut record: Vec<u8> = (0..64).collect();
    let repeat = Repeat { count: 3, from_stride: 2, to_stride: 8 };
    let narrow = Number { size: 2, signed: false, bool: false };
    let linear = Linear { mul: 2, ..Linear::IDENTITY };
    let steps = [
        Step::Convert { from: 8, to: 16, source: narrow, target: U64, linear, repeat },
        Step::Copy { from: 8, to: 40, size: 1, repeat: Repeat { count: 2, from_stride: 1, to_stride: 3 } },
        Step::Store {
            to: 48,
            size: 4,
            value: 0x1_0000_0002,
            repeat: Repeat { count: 2, from_stride: 0, to_stride: 8 },
        },
    ];
    apply(&steps, &mut record).unwrap();
    for (i, n) in [0x0908u64, 0x0b0a, 0x0d0c].into_iter().enumerate() {
        assert_eq!(record[16 + i * 8..24 + i * 8], (n * 2).to_le_bytes());
    }
    assert_eq!((record[40], record[41], record[43]), (8, 41, 9));
    assert_eq!(record[48..64], [2, 0, 0, 0, 52, 53, 54, 55, 2, 0, 0, 0, 60, 61, 62, 63]);
    assert_eq!(steps[0].to_string(), "convert u16 at 8 to u64 at 16 as v * 2, 3 times");
    assert_eq!(steps[0].reads(), [8..10, 10..12, 12..14]);
}

#[test]
fn damaged_plans_are_refused() {
    let mut record = [0; 16];
    let many = vec![Step::Store { to: 8, size: 1, value: 0, repeat: ONE }; MAX_STEPS + 1];
    assert_eq!(apply(&many, &mut record), Err(ApplyError::TooMany { count: MAX_STEPS + 1 }));
    let outside = Step::Store { to: 16, size: 1, value: 0, repeat: ONE };
    assert!(matches!(apply(&[outside], &mut record), Err(ApplyError::OutOfBounds { index: 0, .. })));
    let unaligned = Step::Copy { from: 9, to: 12, size: 2, repeat: ONE };
    assert!(matches!(apply(&[unaligned], &mut record), Err(ApplyError::OutOfBounds { .. })));
    let linear = Linear { div: 0, ..Linear::IDENTITY };
    let zero = Step::Convert { from: 8, to: 8, source: U64, target: U64, linear, repeat: ONE };
    let error = apply(&[zero], &mut record).unwrap_err();
    assert!(
        matches!(error, ApplyError::Malformed { .. }) && error.to_string().contains("plan anew"),
        "{error}"
    );
    let call = Step::Call(state_migrate::Call {
        program: "p".into(),
        slot: 1,
        from: 8,
        from_size: 4,
        to: 12,
        to_size: 4,
    });
    let error = apply(std::slice::from_ref(&call), &mut record).unwrap_err();
    assert_eq!(error, ApplyError::Call { index: 0, program: "p".into() });
    let run = |_: &state_migrate::Call, old: &[u8], new: &mut [u8]| new.copy_from_slice(&[old[0] + 1; 4]);
    apply_with(&[call], &mut record, run).unwrap();
    assert_eq!(record[12..], [1; 4]);
}

#[test]
fn scales_are_read_and_written() {
    let read = |text: &str| Scale::parse(text).map(|s| (s.mul, s.div, s.add));
    assert_eq!(read("1000"), Some((1000, 1, 0)));
    assert_eq!(read(" 1 / 1000 "), Some((1, 1000, 0)));
    assert_eq!(read("9/5+32"), Some((9, 5, 32)));
    assert_eq!(read("-0x10/5-32"), Some((-16, 5, -32)));
    assert_eq!(read("2-1"), Some((2, 1, -1)));
    assert_eq!(read("2147483648/2147483648"), Some((1 << 31, 1 << 31, 0)));
    for text in
        ["", "0", "1/0", "1/-2", "2147483649", "1/2147483649", "1+", "1/2/3", "1+-2", "+1", "x", "1+2+3"]
    {
        assert_eq!(read(text), None, "{text}");
    }
    for text in ["1000", "1/1000", "9/5+32", "-16/5-32"] {
        assert_eq!(Scale::parse(text).unwrap().to_string(), text);
    }
}

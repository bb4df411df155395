//! Values of columns, and what becomes of them: written from the rules' definition, in wide integers, without the
//! crate's own arithmetic.

use std::collections::BTreeMap;

use state_migrate::{Scale, Type};

/// The value of a column, by its type. Padding is not part of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(i128),
    Array(Vec<Value>),
    Struct(BTreeMap<String, Value>),
    Bytes(Vec<u8>),
}

/// The least and the greatest of a type, if it is a number.
pub fn range(ty: &Type) -> Option<(i128, i128)> {
    match ty {
        Type::Bool => Some((0, 1)),
        Type::Int { size, signed } | Type::Enum { size, signed } => Some(if *signed {
            (-(1i128 << (size * 8 - 1)), (1i128 << (size * 8 - 1)) - 1)
        } else {
            (0, (1i128 << (size * 8)) - 1)
        }),
        _ => None,
    }
}

pub fn read(ty: &Type, bytes: &[u8]) -> Value {
    let size = ty.size() as usize;
    match ty {
        Type::Array { elem, .. } => {
            let each = elem.size() as usize;
            Value::Array(bytes[..size].chunks(each).map(|c| read(elem, c)).collect())
        }
        Type::Struct { fields, .. } => {
            let field =
                |f: &state_migrate::StructField| (f.name.clone(), read(&f.ty, &bytes[f.offset as usize..]));
            Value::Struct(fields.iter().map(field).collect())
        }
        Type::Bytes { .. } => Value::Bytes(bytes[..size].to_vec()),
        _ => {
            let raw = bytes[..size].iter().rev().fold(0i128, |v, b| v << 8 | i128::from(*b));
            let (min, max) = range(ty).unwrap();
            Value::Number(if min < 0 && raw > max { raw - (1i128 << (size * 8)) } else { raw })
        }
    }
}

pub fn write(ty: &Type, value: &Value, bytes: &mut [u8]) {
    match (ty, value) {
        (Type::Array { elem, .. }, Value::Array(values)) => {
            for (value, chunk) in values.iter().zip(bytes.chunks_mut(elem.size() as usize)) {
                write(elem, value, chunk);
            }
        }
        (Type::Struct { fields, .. }, Value::Struct(values)) => {
            for f in fields {
                write(&f.ty, &values[&f.name], &mut bytes[f.offset as usize..]);
            }
        }
        (Type::Bytes { .. }, Value::Bytes(raw)) => bytes[..raw.len()].copy_from_slice(raw),
        (_, Value::Number(n)) => {
            bytes[..ty.size() as usize].copy_from_slice(&n.to_le_bytes()[..ty.size() as usize]);
        }
        _ => panic!("{ty} is not {value:?}"),
    }
}

/// A new column's value: the default in every number of it that is not in a struct.
pub fn initial(ty: &Type, default: Option<i128>) -> Value {
    match ty {
        Type::Array { elem, len } => Value::Array(vec![initial(elem, default); *len as usize]),
        Type::Struct { fields, .. } => {
            Value::Struct(fields.iter().map(|f| (f.name.clone(), initial(&f.ty, None))).collect())
        }
        Type::Bytes { size, .. } => Value::Bytes(vec![0; *size as usize]),
        _ => Value::Number(default.unwrap_or(0)),
    }
}

/// What becomes of `value` in a type where everything else is as in `base`. `number` gives the numbers that one may
/// become, before the type's range; the one that `actual` has there is taken if it is one of them, else the first.
pub fn convert(
    (from, value): (&Type, &Value),
    (to, base): (&Type, &Value),
    actual: &Value,
    number: &dyn Fn(i128) -> Vec<i128>,
) -> Value {
    match (value, base, actual) {
        (Value::Array(values), Value::Array(base), Value::Array(actual)) => {
            let (Type::Array { elem: from, .. }, Type::Array { elem: to, .. }) = (from, to) else {
                panic!("{from} is no array, or {to}");
            };
            let each = base.iter().zip(actual).enumerate().map(|(i, (base, actual))| match values.get(i) {
                Some(value) => convert((from, value), (to, base), actual, number),
                None => base.clone(),
            });
            Value::Array(each.collect())
        }
        (Value::Struct(values), Value::Struct(base), Value::Struct(actual)) => {
            let (Type::Struct { fields: from, .. }, Type::Struct { fields: to, .. }) = (from, to) else {
                panic!("{from} is no struct, or {to}");
            };
            let mut out = base.clone();
            for to in to {
                let Some(from) = from.iter().find(|f| f.name == to.name) else { continue };
                let (value, base) = ((&from.ty, &values[&to.name]), (&to.ty, &base[&to.name]));
                out.insert(to.name.clone(), convert(value, base, &actual[&to.name], number));
            }
            Value::Struct(out)
        }
        (Value::Number(n), Value::Number(_), Value::Number(actual)) => {
            let (min, max) = range(to).unwrap();
            let may: Vec<i128> = number(*n).into_iter().map(|n| n.clamp(min, max)).collect();
            Value::Number(*may.iter().find(|n| *n == actual).unwrap_or(&may[0]))
        }
        (Value::Bytes(raw), Value::Bytes(_), _) => Value::Bytes(raw.clone()),
        _ => panic!("{from} and {to} are unlike"),
    }
}

/// As far as a sign and 64 bits reach.
fn saturate(n: i128) -> i128 {
    n.clamp(-i128::from(u64::MAX), u64::MAX.into())
}

/// A rule, as declared.
pub fn forward(n: i128, rule: &Scale) -> i128 {
    // Wide division truncates toward zero too.
    let product = saturate(saturate(n) * i128::from(rule.mul) / i128::from(rule.div));
    saturate(product + i128::from(rule.add))
}

/// A rule turned round: of the values that it takes to `n` the one of least magnitude, found as the quotient away
/// from zero.
pub fn inverse(n: i128, rule: &Scale) -> i128 {
    let product = saturate(n - i128::from(rule.add)) * i128::from(rule.div);
    let (mul, sign) = (i128::from(rule.mul.abs()), i128::from(rule.mul.signum()));
    let quotient = (product.abs() + mul - 1) / mul * product.signum() * sign;
    saturate(quotient)
}

/// What several rules make of a number, each as declared or turned round: the whole numbers next to the exact value.
/// Nothing when the number or one on the way is so large that 64 bits may not hold it.
pub fn chain(n: i128, rules: &[(Scale, bool)]) -> Option<Vec<i128>> {
    let (mut num, mut den) = (n, 1i128);
    if n.unsigned_abs() > 1 << 62 {
        return None;
    }
    for (rule, back) in rules {
        let (mul, div, add) = (i128::from(rule.mul), i128::from(rule.div), i128::from(rule.add));
        if *back {
            num = num.checked_sub(add.checked_mul(den)?)?.checked_mul(div)?;
            den = den.checked_mul(mul)?;
        } else {
            num = num.checked_mul(mul)?;
            den = den.checked_mul(div)?;
            num = num.checked_add(add.checked_mul(den)?)?;
        }
        if den < 0 {
            (num, den) = (-num, -den);
        }
        if (num / den).unsigned_abs() > 1 << 62 {
            return None;
        }
    }
    let floor = num.div_euclid(den);
    Some(if num.rem_euclid(den) == 0 { vec![floor] } else { vec![floor, floor + 1] })
}

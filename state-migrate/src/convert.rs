//! From one type to another: what may be converted, and the steps that do it.

mod merge;

use crate::step::{Linear, Number};
use crate::types::{StructField, Type};

pub(crate) use self::merge::merge;

/// Why a value of one type cannot become one of another. `path` leads to the part in question, empty for the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// Not every value fits, and the rule does not say that it may be cut.
    Narrower { path: String, from: String, to: String },
    /// They have nothing in common.
    Unlike { path: String },
}

/// Whether a value of type `from` can become one of type `to`:
///
/// - a number, `bool` and enum included, any number that holds all its values, and with `saturate` any number;
/// - an array, an array of another length if the elements can be converted;
/// - a struct, a struct with at least one field of the same name, where all such fields can be converted;
/// - anything, the same type.
pub(crate) fn check(from: &Type, to: &Type, saturate: bool) -> Result<(), Why> {
    match (from, to) {
        _ if from == to => Ok(()),
        (Type::Array { elem: from, .. }, Type::Array { elem: to, .. }) => {
            check(from, to, saturate).map_err(|why| why.inside("[]"))
        }
        (Type::Struct { fields: from, .. }, Type::Struct { fields: to, .. }) => {
            let mut any = false;
            for (from, to) in common(from, to) {
                any = true;
                check(&from.ty, &to.ty, saturate).map_err(|why| why.inside(&format!(".{}", to.name)))?;
            }
            if any { Ok(()) } else { Err(Why::Unlike { path: String::new() }) }
        }
        _ => match (Number::of(from), Number::of(to)) {
            (Some(source), Some(target)) if saturate || target.holds(source) => Ok(()),
            (Some(_), Some(_)) => {
                Err(Why::Narrower { path: String::new(), from: from.to_string(), to: to.to_string() })
            }
            _ => Err(Why::Unlike { path: String::new() }),
        },
    }
}

impl Why {
    fn inside(mut self, part: &str) -> Why {
        let (Why::Narrower { path, .. } | Why::Unlike { path }) = &mut self;
        path.insert_str(0, part);
        self
    }
}

/// The pairs of fields of the same name.
fn common<'a>(
    from: &'a [StructField],
    to: &'a [StructField],
) -> impl Iterator<Item = (&'a StructField, &'a StructField)> {
    to.iter().filter_map(|t| from.iter().find(|f| f.name == t.name).map(|f| (f, t)))
}

/// One elementary store of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Op {
    pub(crate) shape: Shape,
    pub(crate) to: u32,
    pub(crate) from: u32,
}

/// What one does, but for where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    Store { size: u32, value: u64 },
    Copy { size: u32 },
    Convert { source: Number, target: Number, linear: Linear },
}

impl Op {
    /// How many bytes it writes.
    pub(crate) fn size(&self) -> u32 {
        match self.shape {
            Shape::Store { size, .. } | Shape::Copy { size } => size,
            Shape::Convert { target, .. } => target.size,
        }
    }
}

/// Two types with the places of their values.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) from: &'a Type,
    pub(crate) from_at: u32,
    pub(crate) to: &'a Type,
    pub(crate) to_at: u32,
}

/// Adds the stores that make the value at `to` of that at `from`, which [`check`] allows with `saturate`. Parts of
/// `to` that have no counterpart are left alone.
pub(crate) fn lower(pair: Pair, linear: &Linear, ops: &mut Vec<Op>) {
    let Pair { from, from_at, to, to_at } = pair;
    if *linear == Linear::IDENTITY && from == to {
        copy(from_at, to_at, from.size(), ops);
        return;
    }
    match (from, to) {
        (Type::Array { elem: from, len: from_len }, Type::Array { elem: to, len: to_len }) => {
            let len = *from_len.min(to_len);
            if *linear == Linear::IDENTITY && from == to {
                copy(from_at, to_at, from.size() * len, ops);
                return;
            }
            for i in 0..len {
                let (from_at, to_at) = (from_at + i * from.size(), to_at + i * to.size());
                lower(Pair { from, from_at, to, to_at }, linear, ops);
            }
        }
        (Type::Struct { fields: from, .. }, Type::Struct { fields: to, .. }) => {
            for (from, to) in common(from, to) {
                let (from_at, to_at) = (from_at + from.offset, to_at + to.offset);
                lower(Pair { from: &from.ty, from_at, to: &to.ty, to_at }, linear, ops);
            }
        }
        _ => {
            let (Some(source), Some(target)) = (Number::of(from), Number::of(to)) else { return };
            let shape = if *linear == Linear::IDENTITY && source == target {
                Shape::Copy { size: source.size }
            } else {
                Shape::Convert { source, target, linear: *linear }
            };
            ops.push(Op { shape, to: to_at, from: from_at });
        }
    }
}

/// Copies bytes, in pieces as large as the alignment of both places allows.
fn copy(from: u32, to: u32, len: u32, ops: &mut Vec<Op>) {
    let mut at = 0;
    while at < len {
        let fits = |s: &u32| (from + at).is_multiple_of(*s) && (to + at).is_multiple_of(*s) && at + s <= len;
        let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        ops.push(Op { shape: Shape::Copy { size }, to: to + at, from: from + at });
        at += size;
    }
}

/// Adds stores of those bytes of a new column that no store in `ops` writes yet. All bytes of a new column are its
/// own, padding included, so the stores can be as large as its place allows.
pub(crate) fn fill(at: u32, bytes: &[u8], ops: &mut Vec<Op>) {
    let mut written = vec![false; bytes.len()];
    for op in ops.iter() {
        let start = op.to.saturating_sub(at) as usize;
        if let (true, Some(part)) = (op.to >= at, written.get_mut(start..start + op.size() as usize)) {
            part.fill(true);
        }
    }
    let mut i = 0;
    while i < bytes.len() {
        if written[i] {
            i += 1;
            continue;
        }
        let to = at + i as u32;
        let fits = |s: &usize| {
            to.is_multiple_of(*s as u32) && written.get(i..i + s).is_some_and(|w| w.iter().all(|w| !w))
        };
        let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let value = bytes[i..i + size].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        ops.push(Op { shape: Shape::Store { size: size as u32, value }, to, from: 0 });
        i += size;
    }
}

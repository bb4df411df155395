//! Makes one version of a policy's state out of the one before, and says what each column is meant to be.

use state_migrate::{Column, Rule, Scale, StructField, Type};

use crate::builder::{array, column, union};
use crate::model::range;

/// A small generator: what is drawn depends on the seed alone, and costs little.
pub struct Rng {
    state: u64,
    names: u32,
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed, names: 0 }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// A number of the type: any, a small one, or one at the edge.
    pub fn number(&mut self, ty: &Type) -> i128 {
        let (min, max) = range(ty).unwrap();
        let n = i128::from(self.next());
        let n = match self.below(4) {
            0 => min + n % (max - min + 1),
            1 => min + n % 3,
            2 => max - n % 3,
            _ => n % 4000 - 1000,
        };
        n.clamp(min, max)
    }
}

/// What a column of the new version is meant to be.
#[derive(Debug, Clone)]
pub enum Meant {
    /// Column `id` of the version before.
    Same(usize),
    /// Made of column `id`.
    Made(usize, Option<Scale>),
    New,
}

fn scalar(rng: &mut Rng) -> Type {
    let size = 1 << rng.below(4);
    let signed = rng.chance(50);
    match rng.below(5) {
        0 => Type::Bool,
        1 => Type::Enum { size, signed },
        _ => Type::Int { size, signed },
    }
}

fn structure(mut fields: Vec<StructField>) -> Type {
    let (mut end, mut align) = (0u32, 1);
    for f in &mut fields {
        f.offset = end.next_multiple_of(f.ty.align());
        align = align.max(f.ty.align());
        end = f.offset + f.ty.size();
    }
    Type::Struct { size: end.next_multiple_of(align), align, fields }
}

fn ty(rng: &mut Rng, depth: u32) -> Type {
    match rng.below(if depth == 0 { 4 } else { 8 }) {
        4 | 5 => {
            let elem = ty(rng, depth - 1);
            array(elem, 1 + rng.below(4) as u32)
        }
        6 => {
            let count = 1 + rng.below(3);
            structure((0..count).map(|_| field(rng, depth - 1)).collect())
        }
        7 => union(ty(rng, depth - 1)),
        _ => scalar(rng),
    }
}

fn field(rng: &mut Rng, depth: u32) -> StructField {
    StructField { name: rng.name("f"), offset: 0, ty: ty(rng, depth) }
}

/// Another type that a value can go on in, and whether it may have to be cut for that.
fn change(rng: &mut Rng, old: &Type) -> (Type, bool) {
    match old {
        Type::Array { elem, len } => {
            let len = if rng.chance(50) { *len } else { 1 + rng.below(6) as u32 };
            let (elem, cut) = if rng.chance(40) { change(rng, elem) } else { ((**elem).clone(), false) };
            (array(elem, len), cut)
        }
        Type::Struct { fields, .. } => {
            let (mut out, mut cut) = (Vec::new(), false);
            for (i, f) in fields.iter().enumerate() {
                // One at least stays.
                if i > 0 && rng.chance(25) {
                    continue;
                }
                let (ty, c) = if rng.chance(40) { change(rng, &f.ty) } else { (f.ty.clone(), false) };
                cut |= c;
                let at = rng.below(out.len() as u64 + 1) as usize;
                out.insert(at, StructField { name: f.name.clone(), offset: 0, ty });
            }
            if rng.chance(40) {
                out.push(field(rng, 0));
            }
            (structure(out), cut)
        }
        Type::Bytes { .. } => (old.clone(), false),
        _ => {
            let new = scalar(rng);
            let ((min, max), (new_min, new_max)) = (range(old).unwrap(), range(&new).unwrap());
            let cut = new_min > min || new_max < max;
            (new, cut)
        }
    }
}

pub fn innermost(ty: &Type) -> &Type {
    match ty {
        Type::Array { elem, .. } => innermost(elem),
        other => other,
    }
}

fn default(rng: &mut Rng, ty: &Type) -> Option<i128> {
    let inner = innermost(ty);
    (range(inner).is_some() && rng.chance(60)).then(|| rng.number(inner))
}

fn scale(rng: &mut Rng) -> Scale {
    let factor = |rng: &mut Rng| match rng.below(4) {
        0 => 1,
        1 => 1000,
        2 => 1 + rng.below(20) as i64,
        _ => 1 + rng.below(1 << 31) as i64,
    };
    let sign = if rng.chance(20) { -1 } else { 1 };
    let add = if rng.chance(60) { 0 } else { rng.below(2000) as i64 - 1000 };
    Scale { mul: factor(rng) * sign, div: factor(rng), add }
}

/// The next version.
pub fn evolve(rng: &mut Rng, before: &[(usize, Column)]) -> Vec<(Column, Meant)> {
    let mut after = Vec::new();
    for (id, old) in before {
        let mut new = old.clone();
        if rng.chance(30) {
            // The author removes tags that did their work; the unit stays.
            new.rule = Rule::default();
        }
        match rng.below(100) {
            0..45 => {
                new.default = default(rng, &new.ty);
                after.push((new, Meant::Same(*id)));
                if rng.chance(10) {
                    let mut copy = column(&rng.name("c"), old.ty.clone());
                    copy.unit = old.unit.clone();
                    copy.rule.from = Some(old.name.clone());
                    after.push((copy, Meant::Made(*id, None)));
                }
            }
            45..55 => {}
            _ => {
                let (renamed, retyped) = (rng.chance(40), rng.chance(60));
                let mut made = None;
                if renamed {
                    new.name = rng.name("c");
                    new.rule = Rule { from: Some(old.name.clone()), ..Rule::default() };
                }
                if retyped {
                    let (ty, cut) = change(rng, &old.ty);
                    (new.ty, new.rule.saturate) = (ty, cut || rng.chance(20));
                }
                let number = |ty: &Type| range(innermost(ty)).is_some() && *innermost(ty) != Type::Bool;
                if rng.chance(40) && number(&new.ty) && number(&old.ty) {
                    let scale = scale(rng);
                    made = Some(scale);
                    new.rule.scale = Some(scale);
                    let still = |name: &String| before.iter().any(|(_, c)| c.name == *name);
                    if !renamed && new.rule.from.as_ref().is_some_and(still) {
                        // It would be derived from that one anew.
                        new.rule.from = None;
                    }
                    new.unit = Some(rng.name("unit"));
                }
                new.default = default(rng, &new.ty);
                let same = !renamed && made.is_none() && new.ty == old.ty;
                after.push((new, if same { Meant::Same(*id) } else { Meant::Made(*id, made) }));
            }
        }
    }
    while after.is_empty() || rng.chance(40) {
        let ty = ty(rng, 2);
        let mut new = column(&rng.name("c"), ty);
        new.default = default(rng, &new.ty);
        new.unit = rng.chance(30).then(|| rng.name("unit"));
        after.push((new, Meant::New));
    }
    after
}

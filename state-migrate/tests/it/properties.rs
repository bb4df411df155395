//! What holds for every sequence of swaps.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use state_migrate::{
    Btf, Column, Fate, HEADER, Kind, Layout, Plan, Queue, QueueOrder, QueueSpan, Schema, Scope, StructField,
    Type, augment, plan,
};

use crate::builder::{Builder, column, union};

const SLOTS: u32 = 4;

fn scalar() -> impl Strategy<Value = Type> {
    let size = prop::sample::select(vec![1u32, 2, 4, 8]);
    prop_oneof![
        (size.clone(), any::<bool>()).prop_map(|(size, signed)| Type::Int { size, signed }),
        Just(Type::Bool),
        (size, any::<bool>()).prop_map(|(size, signed)| Type::Enum { size, signed }),
    ]
}

/// A struct of these types, laid out as in C.
fn structure(types: Vec<Type>) -> Type {
    let (mut fields, mut end, mut align) = (Vec::new(), 0u32, 1);
    for (i, ty) in types.into_iter().enumerate() {
        let offset = end.next_multiple_of(ty.align());
        align = align.max(ty.align());
        end = offset + ty.size();
        fields.push(StructField { name: format!("m{i}"), offset, ty });
    }
    Type::Struct { size: end.next_multiple_of(align), align, fields }
}

fn ty() -> impl Strategy<Value = Type> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 1u32..4).prop_map(|(elem, len)| Type::Array { elem: Box::new(elem), len }),
            vec(inner.clone(), 1..4).prop_map(structure),
            inner.prop_map(union),
        ]
    })
}

fn innermost(ty: &Type) -> &Type {
    match ty {
        Type::Array { elem, .. } => innermost(elem),
        other => other,
    }
}

/// A default that fits the type, out of any bits.
fn fit(ty: &Type, bits: u64) -> Option<i128> {
    let (size, signed) = match innermost(ty) {
        Type::Struct { .. } | Type::Bytes { .. } => return None,
        Type::Bool => return Some(i128::from(bits & 1)),
        Type::Int { size, signed } | Type::Enum { size, signed } => (*size, *signed),
        Type::Array { .. } => unreachable!(),
    };
    let shift = 64 - size * 8;
    Some(if signed {
        i128::from((bits << shift) as i64 >> shift)
    } else {
        i128::from(bits << shift >> shift)
    })
}

/// Types that the versions of a policy choose from: for each name the usual one and another.
fn pool() -> impl Strategy<Value = Vec<(Type, Type)>> {
    vec((ty(), ty()), NAMES.len())
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Columns by index of their name; rarely of the other type, so that versions share most columns.
fn columns() -> impl Strategy<Value = BTreeMap<usize, (bool, Option<u64>)>> {
    let other = prop_oneof![9 => Just(false), 1 => Just(true)];
    btree_map(0..NAMES.len(), (other, any::<Option<u64>>()), 1..6)
}

type Draft =
    (BTreeMap<Scope, BTreeMap<usize, (bool, Option<u64>)>>, BTreeMap<String, (QueueOrder, QueueSpan)>);

/// A schema without its types.
fn draft() -> impl Strategy<Value = Draft> {
    let scope = prop::sample::select(Scope::ALL.to_vec());
    let order = prop::sample::select(vec![QueueOrder::Fifo, QueueOrder::Vtime]);
    let span = prop::sample::select(QueueSpan::ALL.to_vec());
    (btree_map(scope, columns(), 0..4), btree_map("q[a-z]{0,8}", (order, span), 0..3))
}

fn finish((scopes, queues): Draft, pool: &[(Type, Type)]) -> Schema {
    let make = |(i, (other, bits)): (usize, (bool, Option<u64>))| {
        let ty = if other { &pool[i].1 } else { &pool[i].0 };
        let default = bits.and_then(|bits| fit(ty, bits));
        Column { default, ..column(NAMES[i], ty.clone()) }
    };
    Schema {
        scopes: scopes.into_iter().map(|(s, c)| (s, c.into_iter().map(make).collect())).collect(),
        queues: queues.into_iter().map(|(name, (order, span))| Queue { name, order, span }).collect(),
        ..Schema::default()
    }
}

fn schema() -> impl Strategy<Value = Schema> {
    (draft(), pool()).prop_map(|(draft, pool)| finish(draft, &pool))
}

/// No column overlaps another, the header or the record's end, and each is aligned.
pub fn check_layout(layout: &Layout) {
    for (scope, s) in &layout.scopes {
        let mut used = vec![false; s.record_size as usize];
        used[..HEADER as usize].fill(true);
        for c in &s.columns {
            assert!(!c.slots.is_empty(), "{scope}.{} is kept for no one", c.name);
            assert_eq!(c.offset % c.ty.align(), 0, "{scope}.{} is not aligned", c.name);
            for byte in &mut used[c.offset as usize..(c.offset + c.ty.size()) as usize] {
                assert!(!*byte, "{scope}.{} overlaps", c.name);
                *byte = true;
            }
        }
        assert_eq!(layout.free_bytes(*scope) as usize, used.iter().filter(|u| !**u).count());
    }
}

/// Each byte of the image is that of a column's default, element by element, or zero.
fn check_image(layout: &Layout) {
    for (&scope, s) in &layout.scopes {
        let mut expected = vec![0; s.record_size as usize];
        for c in &s.columns {
            let size = innermost(&c.ty).size() as usize;
            let Some(default) = c.default else { continue };
            for chunk in expected[c.offset as usize..(c.offset + c.ty.size()) as usize].chunks_mut(size) {
                chunk.copy_from_slice(&default.to_le_bytes()[..size]);
            }
        }
        assert_eq!(layout.image(scope), expected, "{scope}");
    }
}

/// The type that BTF describes, read without the crate's own reader of schemas.
fn size_in(btf: &Btf, id: u32) -> u32 {
    match btf.kind(id) {
        Some(Kind::Array) => {
            let array = btf.array(id).unwrap();
            size_in(btf, array.elem) * array.len
        }
        _ => btf.size(id).unwrap(),
    }
}

/// The augmented BTF has exactly the schema's columns where the layout has them.
fn check_augment(kernel: &[u8], schema: &Schema, layout: &Layout, slot: u32) {
    let out = augment(kernel, schema, layout, slot).unwrap();
    let btf = Btf::parse(&out).unwrap();
    for scope in Scope::ALL {
        let id = btf.find(Kind::Struct, scope.struct_name());
        let Some(columns) = schema.scopes.get(&scope) else {
            assert_eq!(id, None);
            continue;
        };
        let id = id.unwrap();
        assert_eq!(btf.size(id), Some(layout.scopes[&scope].record_size));
        let mut members: Vec<_> =
            btf.members(id).map(|m| (m.name, m.bit_offset / 8, size_in(&btf, m.type_id))).collect();
        let place = |c: &Column| layout.column(scope, slot, &c.name).unwrap().offset;
        let mut expected: Vec<_> = columns.iter().map(|c| (c.name.as_str(), place(c), c.ty.size())).collect();
        members.sort();
        expected.sort();
        assert_eq!(members, expected);
    }
    // And it reads back as the same types. The record is not C's struct, but a schema all the same.
    let read = Schema::from_btf(&btf).unwrap();
    for (scope, columns) in &schema.scopes {
        for column in &read.scopes[scope] {
            assert!(columns.iter().any(|c| c.name == column.name && c.ty == column.ty), "{column:?}");
        }
    }
}

/// Every column of a live slot stands where it stood.
fn check_kept(before: &Layout, after: &Layout) {
    for (scope, s) in &before.scopes {
        for c in &s.columns {
            let still = after.scopes[scope].columns.iter().find(|a| a.id == c.id).unwrap();
            assert_eq!((still.offset, &still.name, &still.ty), (c.offset, &c.name, &c.ty), "{scope}");
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn every_sequence_of_swaps(
        pool in pool(),
        swaps in vec((draft(), 0..SLOTS, prop::bool::weighted(0.8)), 1..12),
        size in 16u32..200,
    ) {
        let kernel = {
            let mut b = Builder::new();
            b.int("int", 4, 1);
            b.build()
        };
        let mut resident = Layout::new(&Scope::ALL.map(|scope| (scope, size)));
        let mut running = None;
        for (draft, slot, commit) in swaps {
            let schema = finish(draft, &pool);
            if running == Some(slot) {
                continue;
            }
            resident.evict(slot);
            check_layout(&resident);
            // A plan that fails, or is not committed, touches nothing.
            let Ok(made) = plan(&resident, running, &schema, slot) else { continue };
            check_layout(&made.layout);
            check_kept(&resident, &made.layout);
            check_image(&made.layout);
            check_augment(&kernel, &schema, &made.layout, slot);
            for (scope, columns) in &schema.scopes {
                prop_assert_eq!(made.layout.named_by(*scope, slot).count(), columns.len());
            }
            let json = serde_json::to_string(&made).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Plan>(&json).unwrap(), &made);
            if commit {
                (resident, running) = (made.layout, Some(slot));
            }
        }
    }

    #[test]
    fn a_swap_to_the_same_schema_changes_nothing(schema in schema()) {
        let empty = Layout::new(&Scope::ALL.map(|scope| (scope, 4096)));
        let first = plan(&empty, None, &schema, 0).unwrap();
        let mut second = plan(&first.layout, Some(0), &schema, 1).unwrap();
        prop_assert!(second.steps.is_empty());
        prop_assert!(second.columns.iter().all(|c| c.fate == Fate::Carried));
        second.layout.evict(1);
        prop_assert_eq!(second.layout, first.layout);
    }

    #[test]
    fn a_schema_is_read_as_it_was_declared(schema in schema()) {
        let mut b = Builder::new();
        b.schema(&schema);
        let raw = b.build();
        prop_assert_eq!(Schema::from_btf(&Btf::parse(&raw).unwrap()).unwrap(), schema);
    }
}

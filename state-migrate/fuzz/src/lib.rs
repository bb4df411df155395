//! What each fuzz target does with its input. `tests/it/corpus.rs` has this file as a module and does the same with
//! the seeds, so it may use only what both depend on.
//!
//! From `state-migrate/`, with the seeds as a start and what is found besides kept out of the tree:
//!
//! ```text
//! mkdir -p fuzz/corpus/btf
//! cargo +nightly fuzz run btf fuzz/corpus/btf fuzz/seeds/btf -- -max_total_time=600
//! ```

use std::collections::BTreeMap;

use state_migrate::snapshot::{MAGIC, NoKey, SavedColumn, Table, restore};
use state_migrate::{
    Btf, Column, HEADER, Kind, Layout, Rule, Schema, Scope, Snapshot, StructField, Type, augment as append,
    malformed_kfuncs, object, plan,
};

/// A few types only where the work grows with the square of their number.
const FEW: u32 = 64;

/// Any bytes as BTF: all that can be asked of it.
pub fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data) else { return };
    for id in (0..btf.type_count() + 2).chain([u32::MAX]) {
        let _ = (btf.kind(id), btf.name(id), btf.size(id), btf.referenced(id), btf.int(id), btf.array(id));
        let _ = (btf.members(id).count(), btf.enumerators(id).count(), btf.params(id).count());
        let _ = (btf.datasec_vars(id).count(), btf.enum_signed(id));
    }
    for id in 0..btf.type_count().min(FEW) {
        let _ = (btf.decl_tags(id, -1).count(), btf.decl_tags(id, 0).count());
        if let Some(kind) = btf.kind(id).filter(|&kind| kind != Kind::Void) {
            assert!(btf.find(kind, btf.name(id)).is_some_and(|found| found <= id) || btf.name(id).is_empty());
        }
    }
    for (name, value) in btf.enumerators_with_prefix("") {
        assert!(name.is_empty() || btf.enumerator(&name) == Some(value));
    }
    let _ = (malformed_kfuncs(&btf), Schema::from_btf(&btf).map_err(|e| e.to_string()));
}

/// Any bytes as a policy's object.
pub fn policy_object(data: &[u8]) {
    let _ = object::section(data, "x").map_err(|e| e.to_string());
    let Ok(schema) = Schema::from_object(data).map_err(|e| e.to_string()) else { return };
    let json = serde_json::to_string(&schema).expect("a schema has JSON");
    assert_eq!(serde_json::from_str::<Schema>(&json).expect("that is a schema's"), schema);
    assert!(is_sound(&schema), "what is read has types that can be");
    let sizes: Vec<_> = Scope::ALL.into_iter().map(|scope| (scope, 4096)).collect();
    planned(&Layout::new(&sizes), None, &schema, 0);
}

/// Any bytes as the kernel's BTF.
pub fn augment(data: &[u8]) {
    let (schema, layout) = policy();
    let Ok(out) = append(data, &schema, &layout, 0).map_err(|e| e.to_string()) else { return };
    let (kernel, btf) = (Btf::parse(data).expect("it was read"), Btf::parse(&out).expect("it was written"));
    for id in 0..kernel.type_count() {
        assert_eq!((btf.kind(id), btf.name(id)), (kernel.kind(id), kernel.name(id)));
    }
    for (&scope, columns) in &schema.scopes {
        let id = btf.find(Kind::Struct, scope.struct_name()).expect("it was appended");
        assert!(id >= kernel.type_count());
        for column in columns {
            let member = btf.members(id).find(|m| m.name == column.name).expect("each column is a member");
            let at = layout.offset(scope, &column.name, &column.ty).expect("it was planned");
            assert_eq!(member.bit_offset, at * 8);
        }
    }
    assert!(append(&out, &schema, &layout, 0).is_err(), "never twice");
}

/// Any bytes as a registry in JSON: the layout, the slot that runs, the schema to plan for, its slot.
pub fn layout(data: &[u8]) {
    let Ok((layout, running, schema, slot)) =
        serde_json::from_slice::<(Layout, Option<u32>, Schema, u32)>(data)
    else {
        return;
    };
    let checked = layout.check().map_err(|e| e.to_string());
    if layout.scopes.values().any(|s| s.record_size > 1 << 20) {
        // Only `check` is made to stand that; all else takes memory as the records do.
        assert!(checked.is_err());
        return;
    }
    planned(&layout, running, &schema, slot);
}

/// Any bytes as a snapshot; then the same with lengths and checksums put right.
pub fn snapshot(data: &[u8]) {
    read_snapshot(data);
    let mut sealed = data.to_vec();
    if let Some(body) = sealed.len().checked_sub(4).filter(|&body| body >= 24) {
        sealed[..8].copy_from_slice(&MAGIC);
        let len = sealed.len() as u64;
        sealed[12..20].copy_from_slice(&len.to_le_bytes());
        let header = crc32fast::hash(&sealed[..20]);
        sealed[20..24].copy_from_slice(&header.to_le_bytes());
        let whole = crc32fast::hash(&sealed[..body]);
        sealed[body..].copy_from_slice(&whole.to_le_bytes());
        read_snapshot(&sealed);
    }
}

fn read_snapshot(data: &[u8]) {
    let Ok(snapshot) = Snapshot::from_bytes(data).map_err(|e| e.to_string()) else { return };
    assert_eq!(snapshot.to_bytes().expect("what was read can be written"), data, "one content, one file");
    let (_, layout) = policy();
    let restored = restore(&snapshot, &layout, 0, snapshot.meta.boot_id, |_, _| None);
    let mut record = vec![0; layout.scopes[&Scope::Task].record_size as usize];
    for (_, patches) in restored.tasks.records() {
        for (offset, bytes) in patches {
            assert!(offset >= HEADER);
            record[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    for column in restored.columns {
        let _ = column.to_string();
    }
}

/// Plans, and checks what holds of every plan.
fn planned(resident: &Layout, running: Option<u32>, schema: &Schema, slot: u32) {
    let Ok(mut plan) = plan(resident, running, schema, slot).map_err(|e| e.to_string()) else { return };
    for scope in Scope::ALL {
        let image = plan.layout.image(scope);
        assert_eq!(image.len(), plan.layout.scopes.get(&scope).map_or(0, |s| s.record_size as usize));
        let _ = plan.layout.free_bytes(scope);
    }
    for column in &plan.columns {
        let _ = column.to_string();
    }
    if resident.check().is_ok() && is_sound(schema) {
        assert_eq!(plan.layout.check(), Ok(()), "a sound layout stays sound");
        for (&scope, columns) in &schema.scopes {
            for column in columns {
                assert!(plan.layout.offset(scope, &column.name, &column.ty).is_some());
            }
        }
        let json = serde_json::to_string(&plan.layout).expect("a layout has JSON");
        assert_eq!(serde_json::from_str::<Layout>(&json).expect("that is a layout's"), plan.layout);
    }
    plan.layout.evict(slot);
}

/// Whether each scope's columns are such as a snapshot can hold: types that can be, each name once.
fn is_sound(schema: &Schema) -> bool {
    schema.scopes.values().all(|columns| {
        let saved = |c: &Column| SavedColumn { name: c.name.clone(), ty: c.ty.clone(), unit: None };
        // Names of any characters are sound in BTF.
        let plain = |(i, mut c): (usize, SavedColumn)| {
            let distinct = columns.iter().position(|o| o.name == c.name) == Some(i);
            c.name = if distinct { format!("c{i}") } else { "c0".to_owned() };
            plain_fields(&mut c.ty);
            c
        };
        let saved = columns.iter().map(saved).enumerate().map(plain).collect();
        Table::<NoKey>::new(saved, []).is_ok()
    })
}

fn plain_fields(ty: &mut Type) {
    match ty {
        Type::Array { elem, .. } => plain_fields(elem),
        Type::Struct { fields, .. } => {
            for field in fields {
                field.name = "f".to_owned();
                plain_fields(&mut field.ty);
            }
        }
        _ => {}
    }
}

/// A policy's schema, and the layout with it in slot 0.
fn policy() -> (Schema, Layout) {
    let u64_type = || Type::Int { size: 8, signed: false };
    let field = |name: &str, offset| StructField {
        name: name.to_owned(),
        offset,
        ty: Type::Int { size: 4, signed: true },
    };
    let stats = Type::Struct { size: 8, align: 4, fields: vec![field("runs", 0), field("waits", 4)] };
    let column = |name: &str, ty| Column {
        name: name.to_owned(),
        ty,
        default: None,
        unit: None,
        momentary: false,
        rule: Rule::default(),
    };
    let task = vec![
        column("vtime", u64_type()),
        column("on", Type::Bool),
        column("mode", Type::Enum { size: 4, signed: false }),
        column("stats", stats.clone()),
        column("hist", Type::Array { elem: Box::new(u64_type()), len: 4 }),
    ];
    let scopes = BTreeMap::from([(Scope::Task, task), (Scope::Global, vec![column("clock", u64_type())])]);
    let structs = BTreeMap::from([("stats".to_owned(), stats)]);
    let schema = Schema { scopes, structs, ..Schema::default() };
    let empty = Layout::new(&[(Scope::Task, 128), (Scope::Global, 64)]);
    let layout = plan(&empty, None, &schema, 0).expect("it fits").layout;
    (schema, layout)
}

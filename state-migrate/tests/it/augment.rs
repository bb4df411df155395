//! Appending to the kernel's BTF.

use std::collections::BTreeMap;

use state_migrate::{
    AugmentError, Btf, Kind, Layout, Schema, Scope, StructField, Type, augment, malformed_kfuncs, plan,
};

use crate::builder::{Builder, SIGNED, array, column, u, union};

fn kernel() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    b.structure("task_struct", 4, &[("pid", int, 0)]);
    b
}

fn stats() -> Type {
    let field = |name: &str, offset| StructField { name: name.into(), offset, ty: u(32) };
    Type::Struct { size: 8, align: 4, fields: vec![field("runs", 0), field("waits", 4)] }
}

fn policy() -> (Schema, Layout) {
    let columns = vec![column("on", Type::Bool), column("stats", stats()), column("hist", array(u(64), 4))];
    let mut schema = Schema { scopes: BTreeMap::from([(Scope::Task, columns)]), ..Schema::default() };
    schema.structs.insert("stats".into(), stats());
    let layout = plan(&Layout::new(&[(Scope::Task, 128)]), None, &schema, 3).unwrap().layout;
    (schema, layout)
}

#[test]
fn the_result_has_the_kernels_types_and_the_policys() {
    let (schema, layout) = policy();
    for (raw, layout_section) in
        [(kernel().build(), None), (kernel().build_with_layout(&[1; 80]), Some([1; 80]))]
    {
        let out = augment(&raw, &schema, &layout, 3).unwrap();
        let btf = Btf::parse(&out).unwrap();
        assert_eq!(btf.find(Kind::Struct, "task_struct"), Some(2));
        let id = btf.find(Kind::Struct, "policy_task").unwrap();
        assert_eq!(btf.size(id), Some(128));
        let members: Vec<_> = btf.members(id).map(|m| (m.name, m.bit_offset / 8)).collect();
        assert_eq!(members, [("hist", 8), ("stats", 40), ("on", 48)]);
        let array = btf.array(btf.members(id).next().unwrap().type_id).unwrap();
        assert_eq!((btf.int(array.elem).unwrap().size, array.len), (8, 4));
        // For accesses through a pointer to it.
        let nested = btf.find(Kind::Struct, "stats").unwrap();
        assert_eq!(btf.members(nested).nth(1).unwrap().bit_offset, 32);
        if let Some(section) = layout_section {
            let at = 32 + u32::from_le_bytes(out[24..28].try_into().unwrap()) as usize;
            assert_eq!(out[at..at + section.len()], section, "the layout section moved along");
        }
    }
}

#[test]
fn refuses_headers_and_bytes_that_it_does_not_know() {
    let (schema, layout) = policy();
    let mut flags = kernel().build();
    flags[3] = 1;
    let error = augment(&flags, &schema, &layout, 3).unwrap_err();
    assert_eq!(error, AugmentError::UnknownHeader { what: "flags" });

    let mut longer = kernel().build();
    longer.splice(24..24, [0; 16]);
    longer[4] = 40;
    let out = augment(&longer, &schema, &layout, 3).unwrap();
    assert!(
        Btf::parse(&out).unwrap().find(Kind::Struct, "policy_task").is_some(),
        "zeros are nothing unknown"
    );
    longer[36] = 1;
    let error = augment(&longer, &schema, &layout, 3).unwrap_err();
    assert_eq!(error, AugmentError::UnknownHeader { what: "fields" });

    let mut behind = kernel().build();
    behind.extend([0, 1]);
    let error = augment(&behind, &schema, &layout, 3).unwrap_err();
    assert_eq!(error, AugmentError::UnknownBytes { at: behind.len() - 2, len: 2 });

    let mut overlap = kernel().build_with_layout(&[1; 4]);
    let types = overlap[12..16].to_vec();
    overlap[28..32].copy_from_slice(&types);
    overlap[24..28].fill(0);
    assert_eq!(augment(&overlap, &schema, &layout, 3), Err(AugmentError::Overlap));
}

#[test]
fn refuses_names_that_the_kernel_has() {
    let (schema, layout) = policy();
    for name in ["policy_cgroup", "policy_task___old"] {
        let mut b = kernel();
        b.structure(name, 4, &[("pid", 1, 0)]);
        let error = augment(&b.build(), &schema, &layout, 3).unwrap_err();
        assert!(matches!(error, AugmentError::NameTaken { .. }), "{name}: {error}");
    }
    let once = augment(&kernel().build(), &schema, &layout, 3).unwrap();
    assert!(matches!(augment(&once, &schema, &layout, 3), Err(AugmentError::NameTaken { .. })));

    let mut other = kernel();
    other.structure("stats", 8, &[("waits", 1, 0), ("runs", 1, 4)]);
    let error = augment(&other.build(), &schema, &layout, 3).unwrap_err();
    assert_eq!(error, AugmentError::NestedNameTaken { name: "stats".into() });
    let mut same = kernel();
    same.structure("stats", 8, &[("runs", 1, 0), ("waits", 1, 4)]);
    let out = augment(&same.build(), &schema, &layout, 3).unwrap();
    let btf = Btf::parse(&out).unwrap();
    assert_eq!(btf.ids(Kind::Struct).filter(|&id| btf.name(id) == "stats").count(), 1);
}

#[test]
fn the_layout_must_be_that_of_the_slot() {
    let (schema, layout) = policy();
    let error = augment(&kernel().build(), &schema, &layout, 2).unwrap_err();
    assert!(matches!(error, AugmentError::NotPlaced { slot: 2, .. }), "{error}");
}

#[test]
fn finds_functions_that_lost_their_twin() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    b.func("scx_bpf_fine", &[("cpu", int)]);
    b.func("scx_bpf_twin", &[("cpu", int), ("aux", int)]);
    b.func("scx_bpf_twin_impl", &[("cpu", int), ("aux", int)]);
    b.func("scx_bpf_alone_impl", &[("aux", int)]);
    b.func("bpf_other", &[("aux", int)]);
    b.func("scx_bpf_first", &[("aux", int), ("cpu", int)]);
    assert!(malformed_kfuncs(&Btf::parse(&b.build()).unwrap()).is_empty());
    b.func("scx_bpf_lost", &[("cpu", int), ("aux", int)]);
    assert_eq!(malformed_kfuncs(&Btf::parse(&b.build()).unwrap()), ["scx_bpf_lost"]);
}

#[test]
fn unions_are_written_as_their_own_policy_sees_them() {
    let (seen, other) = (union(u(64)), union(array(u(64), 1)));
    let schema = |ty: &Type| {
        let columns = vec![column("a", ty.clone()), column("b", union(u(64)))];
        let structs = BTreeMap::from([("both".to_owned(), ty.clone())]);
        Schema { scopes: BTreeMap::from([(Scope::Task, columns)]), structs, ..Schema::default() }
    };
    let layout = plan(&Layout::new(&[(Scope::Task, 64)]), None, &schema(&seen), 0).unwrap().layout;
    let layout = plan(&layout, Some(0), &schema(&other), 1).unwrap().layout;
    let out = augment(&kernel().build(), &schema(&other), &layout, 1).unwrap();
    let btf = Btf::parse(&out).unwrap();
    let id = btf.find(Kind::Struct, "policy_task").unwrap();
    let kinds: Vec<_> = btf
        .members(id)
        .map(|m| {
            assert_eq!(btf.kind(m.type_id), Some(Kind::Union));
            btf.kind(btf.members(m.type_id).next().unwrap().type_id).unwrap()
        })
        .collect();
    assert_eq!(kinds, [Kind::Array, Kind::Int]);
    assert!(btf.find(Kind::Union, "both").is_some());
    let mut taken = kernel();
    taken.union("both", 4, &[("pid", 1)]);
    let error = augment(&taken.build(), &schema(&other), &layout, 1).unwrap_err();
    assert_eq!(error, AugmentError::NestedNameTaken { name: "both".into() });
    // A struct of that name is another thing.
    let mut free = kernel();
    free.structure("both", 4, &[("pid", 1, 0)]);
    assert!(augment(&free.build(), &schema(&other), &layout, 1).is_ok());
}

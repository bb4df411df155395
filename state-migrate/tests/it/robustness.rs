//! No input makes the readers panic, however damaged.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use state_migrate::{
    Btf, Kind, Layout, Queue, QueueOrder, QueueSpan, Schema, Scope, StructField, Type, augment,
    malformed_kfuncs, object, plan,
};

use crate::builder::{Builder, array, column, u};

pub fn sample() -> Schema {
    let field = |name: &str, offset, ty| StructField { name: name.into(), offset, ty };
    let fields = vec![field("a", 0, Type::Bool), field("b", 8, array(u(32), 2))];
    let columns = vec![
        column("vtime", u(64)),
        column("mode", Type::Enum { size: 4, signed: true }),
        column("st", array(Type::Struct { size: 16, align: 4, fields }, 2)),
    ];
    let queues = vec![Queue { name: "shared".into(), order: QueueOrder::Fifo, span: QueueSpan::One }];
    Schema { scopes: BTreeMap::from([(Scope::Task, columns)]), queues, ..Schema::default() }
}

pub fn sample_btf() -> Vec<u8> {
    let mut b = Builder::new();
    b.schema(&sample());
    let int = b.int("int", 4, 1);
    b.func("scx_bpf_f", &[("aux", int)]);
    b.datasec(".bss", &[(1, 2, 3)]);
    b.build_with_layout(&[4; 84])
}

/// An ELF file with one named section, as little of it as the reader takes.
pub fn elf(name: &str, data: &[u8]) -> Vec<u8> {
    let names = format!("\0{name}\0.shstrtab\0");
    let (data_at, names_at) = (64u64, 64 + data.len() as u64);
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    out.resize(16, 0);
    out.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    out.extend([0; 16]);
    out.extend(sections_at.to_le_bytes());
    out.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    // The first eight bytes of the tail are e_flags, e_ehsize and e_phentsize.
    let fixed = out.split_off(48);
    out.extend_from_slice(&fixed);
    out.extend_from_slice(data);
    out.extend_from_slice(names.as_bytes());
    out.resize(sections_at as usize, 0);
    let mut section = |name: u32, kind: u32, at: u64, len: u64| {
        out.extend(name.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend([0; 16]);
        out.extend(at.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend([0; 24]);
    };
    section(0, 0, 0, 0);
    section(1, 1, data_at, data.len() as u64);
    section(2 + name.len() as u32, 3, names_at, names.len() as u64);
    out
}

/// Calls everything that reads BTF.
fn read_all(raw: &[u8]) {
    let schema = sample();
    let layout = plan(&Layout::new(&[(Scope::Task, 256)]), None, &schema, 0).unwrap().layout;
    if let Ok(out) = augment(raw, &schema, &layout, 0) {
        Btf::parse(&out).expect("what was augmented can be read");
    }
    let Ok(btf) = Btf::parse(raw) else { return };
    for id in 0..btf.type_count() + 2 {
        let _ = (btf.kind(id), btf.name(id), btf.size(id), btf.referenced(id), btf.int(id), btf.array(id));
        let _ = (btf.members(id).count(), btf.enumerators(id).count(), btf.params(id).count());
        let _ = (btf.datasec_vars(id).count(), btf.decl_tags(id, 0).count(), btf.enum_signed(id));
    }
    let _ = (btf.find(Kind::Struct, "policy_task"), btf.enumerator("ONE"), btf.enumerators_with_prefix(""));
    let _ = (malformed_kfuncs(&btf), Schema::from_btf(&btf).map_err(|e| e.to_string()));
}

fn mutate(raw: &mut Vec<u8>, edits: &[(usize, u8)], len: Option<usize>) {
    for &(at, byte) in edits {
        let at = at % raw.len();
        raw[at] = byte;
    }
    if let Some(len) = len {
        raw.truncate(len % (raw.len() + 1));
    }
}

#[test]
fn the_samples_are_good() {
    let raw = sample_btf();
    assert!(Btf::parse(&raw).is_ok());
    let file = elf(".BTF", &raw);
    assert_eq!(object::btf_section(&file).unwrap(), raw);
    assert_eq!(object::section(&file, ".policy"), Ok(None));
    assert_eq!(Schema::from_object(&file).unwrap(), sample());
    assert_eq!(object::btf_section(&elf(".other", &raw)), Err(state_migrate::ObjectError::NoBtf));
}

#[test]
fn a_tower_of_structs_is_bounded() {
    // Each struct holds thousands of the one before: without bounds it would be 4096^8 fields.
    let mut b = Builder::new();
    let mut ty = b.int("char", 1, 0);
    for level in 0..8 {
        let names: Vec<String> = (0..4096).map(|i| format!("f{i}")).collect();
        let members: Vec<_> = names.iter().enumerate().map(|(i, n)| (n.as_str(), ty, i as u32)).collect();
        ty = b.structure(
            if level == 7 { "policy_task" } else { "level" },
            4096,
            &members[..4096 >> (level * 2)],
        );
    }
    read_all(&b.build());
}

proptest! {
    #![proptest_config(crate::cases(2000))]

    #[test]
    fn random_bytes(raw in vec(any::<u8>(), 0..400)) {
        read_all(&raw);
        let _ = Schema::from_object(&raw);
        let _ = object::section(&raw, "x");
    }

    #[test]
    fn random_bytes_behind_a_header(types in vec(0u8..20, 0..100), strings in vec(any::<u8>(), 0..40)) {
        let mut b = Builder::new();
        for chunk in types.chunks_exact(4) {
            b.raw("n", u32::from(chunk[0]) << 24 | u32::from(chunk[1] % 3), chunk[2].into(), &[chunk[3].into()]);
        }
        b.string(&strings.iter().map(|&s| char::from(s % 128)).filter(|c| *c != '\0').collect::<String>());
        read_all(&b.build());
    }

    #[test]
    fn mutated_btf(edits in vec((any::<usize>(), any::<u8>()), 1..12), len in any::<Option<usize>>()) {
        let mut raw = sample_btf();
        mutate(&mut raw, &edits, len);
        read_all(&raw);
    }

    #[test]
    fn small_numbers_in_btf(edits in vec((any::<usize>(), 0u8..40), 1..6)) {
        // More of these stay readable and reach the inner checks.
        let mut raw = sample_btf();
        mutate(&mut raw, &edits, None);
        read_all(&raw);
    }

    #[test]
    fn mutated_objects(edits in vec((any::<usize>(), any::<u8>()), 1..12), len in any::<Option<usize>>()) {
        let mut file = elf(".BTF", &sample_btf());
        mutate(&mut file, &edits, len);
        let _ = Schema::from_object(&file);
        let _ = object::section(&file, ".BTF");
    }
}

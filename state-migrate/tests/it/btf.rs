//! Reading BTF.

use state_migrate::{Btf, BtfError, Kind};

use crate::builder::{BOOL, Builder, SIGNED, info};

#[test]
fn reads_every_kind_back() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let flag = b.int("_Bool", 1, BOOL);
    let arr = b.array(int, 3);
    let st = b.structure("point", 8, &[("x", int, 0), ("y", int, 4)]);
    let bits = b.bitfield("bits", int, 5);
    let en = b.enumeration("neg", 4, true, &[("MINUS", -1), ("ONE", 1)]);
    let wide = b.enumeration("wide", 8, false, &[("BIG", i64::MIN)]);
    let ptr = b.refer(Kind::Ptr, "", st);
    let proto = b.proto(&[("p", ptr), ("aux", int)]);
    let func = b.refer(Kind::Func, "f", proto);
    let var = b.var("v", int);
    let sec = b.datasec(".bss", &[(var, 4, 8)]);
    b.tag("on type", st, -1);
    b.tag("on y", st, 1);
    let raw = b.build();
    let btf = Btf::parse(&raw).unwrap();

    assert_eq!(btf.type_count(), 15);
    assert_eq!((btf.kind(0), btf.name(0)), (Some(Kind::Void), ""));
    assert_eq!(btf.kind(15), None);
    assert_eq!(btf.find(Kind::Struct, "point"), Some(st));
    assert_eq!(btf.find(Kind::Struct, "poin"), None);
    assert_eq!(btf.find(Kind::Union, "point"), None);
    let i = btf.int(int).unwrap();
    assert_eq!((i.size, i.bits, i.signed, i.bool), (4, 32, true, false));
    assert!(btf.int(flag).unwrap().bool);
    assert_eq!(btf.int(st), None);
    assert_eq!(btf.array(arr).unwrap().len, 3);
    let members: Vec<_> = btf.members(st).map(|m| (m.name, m.bit_offset, m.bitfield_size)).collect();
    assert_eq!(members, [("x", 0, 0), ("y", 32, 0)]);
    assert_eq!(btf.members(bits).next().unwrap().bitfield_size, 5);
    assert!(btf.enum_signed(en));
    assert_eq!(btf.enumerators(wide).collect::<Vec<_>>(), [("BIG", 1 << 63)]);
    assert_eq!(btf.enumerator("MINUS"), Some(u64::MAX));
    assert_eq!(btf.enumerator("BIG"), Some(1 << 63));
    assert_eq!(btf.enumerator("BI"), None);
    assert_eq!(btf.enumerators_with_prefix("B").into_iter().collect::<Vec<_>>(), [("BIG".into(), 1 << 63)]);
    assert_eq!(btf.referenced(ptr), Some(st));
    assert_eq!(btf.referenced(func), Some(proto));
    assert_eq!(btf.params(proto).collect::<Vec<_>>(), [("p", ptr), ("aux", int)]);
    let v = btf.datasec_vars(sec).next().unwrap();
    assert_eq!((v.type_id, v.offset, v.size), (var, 4, 8));
    assert_eq!(btf.decl_tags(st, 1).collect::<Vec<_>>(), ["on y"]);
    assert_eq!(btf.decl_tags(st, -1).collect::<Vec<_>>(), ["on type"]);
    assert_eq!(btf.decl_tags(st, 0).count(), 0);
}

#[test]
fn names_what_is_wrong() {
    let mut b = Builder::new();
    b.int("int", 4, 0);
    let good = b.build();
    let with = |at: usize, byte: u8| {
        let mut raw = good.clone();
        raw[at] = byte;
        Btf::parse(&raw).err()
    };
    assert_eq!(Btf::parse(&[]).err(), Some(BtfError::Truncated { len: 0 }));
    assert_eq!(Btf::parse(&good[..23]).err(), Some(BtfError::Truncated { len: 23 }));
    assert_eq!(Btf::parse(&[0xeb; 24]).err(), Some(BtfError::NotBtf { magic: 0xebeb }));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert_eq!(Btf::parse(&swapped).err(), Some(BtfError::BigEndian));
    assert_eq!(with(2, 2), Some(BtfError::Version { version: 2 }));
    assert_eq!(with(4, 16), Some(BtfError::HeaderLength { len: 16 }));
    assert!(matches!(with(13, 1), Some(BtfError::Section { name: "type", .. })));
    assert_eq!(with(8, 1), Some(BtfError::Unaligned { name: "type" }));
    assert_eq!(with(24 + 16, b'x'), Some(BtfError::Split));
    assert_eq!(with(good.len() - 1, b'x'), Some(BtfError::Strings));
    assert_eq!(with(24, 5), Some(BtfError::NameOutside { id: 1 }));
    assert_eq!(with(24 + 7, 4 + 100), Some(BtfError::UnknownKind { id: 1, kind: 104 }));
}

#[test]
fn a_layout_section_gives_the_size_of_unknown_kinds() {
    let mut b = Builder::new();
    let unknown = b.raw("future", 21 << 24 | 2, 0, &[1, 2, 3]);
    let int = b.int("int", 4, 0);
    assert_eq!(Btf::parse(&b.build()).err(), Some(BtfError::UnknownKind { id: 1, kind: 21 }));
    let mut layout = [0; 4 * 22];
    (layout[84], layout[85]) = (4, 4);
    let raw = b.build_with_layout(&layout);
    let btf = Btf::parse(&raw).unwrap();
    assert_eq!((btf.kind(unknown), btf.name(unknown)), (None, "future"));
    assert_eq!(btf.name(int), "int");
}

#[test]
fn a_truncated_type_is_an_error() {
    let mut b = Builder::new();
    b.raw("cut", info(Kind::Struct, 3), 4, &[0, 0]);
    assert_eq!(Btf::parse(&b.build()).err(), Some(BtfError::TypeTruncated { id: 1 }));
}

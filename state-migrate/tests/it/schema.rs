//! Reading a policy's schema.

use state_migrate::schema::MAX_QUEUES;
use state_migrate::{
    Btf, Column, Kind, ObjectError, Queue, QueueOrder, QueueSpan, Scale, Schema, SchemaError, Scope,
    Signature, Type,
};

use crate::builder::{BOOL, Builder, SIGNED, array, s, u, union};

fn read(b: &Builder) -> Result<Schema, SchemaError> {
    Schema::from_btf(&Btf::parse(&b.build()).unwrap())
}

/// The error for a `struct policy_task` whose field `f` has the type that `make` adds.
fn refused(make: impl FnOnce(&mut Builder) -> u32) -> SchemaError {
    let mut b = Builder::new();
    let ty = make(&mut b);
    b.structure("policy_task", 1 << 20, &[("f", ty, 0)]);
    let error = read(&b).unwrap_err();
    assert!(error.to_string().starts_with("task.f"), "{error}");
    error
}

/// What comes of a field of type `ty` with this default.
fn with_default(ty: &Type, text: &str) -> Result<Option<i128>, SchemaError> {
    let mut b = Builder::new();
    let id = b.ty(ty);
    let st = b.structure("policy_cpu", 64, &[("f", id, 0)]);
    b.tag(&format!("scx:default={text}"), st, 0);
    read(&b).map(|schema| schema.scopes[&Scope::Cpu][0].default)
}

#[test]
fn reads_columns_through_typedefs_and_qualifiers() {
    let mut b = Builder::new();
    let long = b.int("unsigned long", 8, 0);
    let typedef = b.refer(Kind::Typedef, "u64", long);
    let volatile = b.refer(Kind::Volatile, "", typedef);
    let constant = b.refer(Kind::Const, "", volatile);
    let flag = b.int("_Bool", 1, BOOL);
    let ch = b.int("char", 1, SIGNED);
    let comm = b.array(ch, 16);
    let en = b.enumeration("mode", 4, false, &[("A", 0)]);
    let inner = b.structure("inner", 16, &[("a", flag, 0), ("b", long, 8)]);
    let pair = b.array(inner, 2);
    b.structure(
        "policy_task",
        88,
        &[("vtime", constant, 0), ("on", flag, 8), ("comm", comm, 9), ("mode", en, 28), ("pair", pair, 32)],
    );
    b.structure("policy_global", 8, &[("clock", typedef, 0)]);
    let schema = read(&b).unwrap();
    let shown: Vec<String> =
        schema.scopes[&Scope::Task].iter().map(|c| format!("{}: {}", c.name, c.ty)).collect();
    assert_eq!(
        shown,
        ["vtime: u64", "on: bool", "comm: s8[16]", "mode: enum32", "pair: struct{ a: bool, b: u64 }[2]"]
    );
    assert_eq!(schema.scopes[&Scope::Global].len(), 1);
    assert_eq!(schema.structs.keys().collect::<Vec<_>>(), ["inner"]);
    assert!(schema.queues.is_empty());
}

#[test]
fn survives_json() {
    let mut b = Builder::new();
    let id = b.ty(&array(s(64), 2));
    let st = b.structure("policy_task", 16, &[("f", id, 0)]);
    b.tag("scx:default=-9223372036854775808", st, 0);
    let schema = read(&b).unwrap();
    let json = serde_json::to_string(&schema).unwrap();
    assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
}

#[test]
fn an_object_of_no_scheduler_has_an_empty_schema() {
    let mut b = Builder::new();
    b.refer(Kind::Fwd, "policy_task", 0);
    assert_eq!(read(&b).unwrap(), Schema::default());
}

#[test]
fn refuses_what_cannot_be_state() {
    use SchemaError as E;
    assert!(matches!(refused(|b| b.refer(Kind::Ptr, "", 0)), E::Pointer { .. }));
    let kptr = |b: &mut Builder| {
        let tagged = b.refer(Kind::TypeTag, "kptr", 0);
        b.refer(Kind::Ptr, "", tagged)
    };
    assert!(matches!(refused(kptr), E::Pointer { .. }));
    assert!(matches!(refused(|b| b.refer(Kind::Float, "double", 8)), E::Float { .. }));
    assert!(matches!(refused(|b| b.refer(Kind::Fwd, "later", 0)), E::Forward { .. }));
    assert!(matches!(refused(|b| b.int("__int128", 16, 0)), E::IntSize { size: 16, .. }));
    assert!(matches!(refused(|_| 0), E::Malformed { .. }));
    assert!(matches!(refused(|_| 4711), E::Malformed { .. }));
    assert!(matches!(refused(|b| b.structure("empty", 0, &[])), E::EmptyStruct { .. }));
    let lock = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.structure("bpf_spin_lock", 4, &[("val", int, 0)])
    };
    let error = refused(lock);
    assert!(error.to_string().contains("one lock"), "{error}");
    assert!(matches!(error, E::KernelStruct { name, .. } if name == "bpf_spin_lock"));
    assert!(matches!(refused(|b| b.union("none", 4, &[])), E::EmptyStruct { .. }));
    let pointer = |b: &mut Builder| {
        let ptr = b.refer(Kind::Ptr, "", 0);
        b.union("", 8, &[("p", ptr)])
    };
    assert!(matches!(refused(pointer), E::Pointer { field, .. } if field == "f.p"));
    let small = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.union("", 2, &[("a", int)])
    };
    assert!(matches!(refused(small), E::Malformed { .. }));
    let packed = |b: &mut Builder| {
        let (int, byte) = (b.int("unsigned int", 4, 0), b.int("char", 1, 0));
        let bytes = b.array(byte, 5);
        b.union("", 5, &[("a", int), ("b", bytes)])
    };
    assert!(matches!(refused(packed), E::Packed { .. }));
    let flexible = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.array(int, 0)
    };
    assert!(matches!(refused(flexible), E::ZeroArray { .. }));
    let packed = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.structure("packed", 5, &[("a", int, 1)])
    };
    assert!(matches!(refused(packed), E::Packed { field, .. } if field == "f.a"));
    let overlap = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.structure("overlap", 8, &[("a", int, 4), ("b", int, 4)])
    };
    assert!(matches!(refused(overlap), E::Malformed { field, .. } if field == "f.b"));
    let huge = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.array(int, 1 << 30)
    };
    assert!(matches!(refused(huge), E::TooLarge { .. }));
    let bits = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.bitfield("bits", int, 3)
    };
    assert!(matches!(refused(bits), E::Bitfield { field, .. } if field == "f.flags"));
    // A typedef of itself, and an array of itself.
    assert!(matches!(refused(|b| b.refer(Kind::Typedef, "t", 1)), E::Malformed { .. }));
    assert!(matches!(refused(|b| b.array(1, 2)), E::TooDeep { .. }));
    let anonymous = |b: &mut Builder| {
        let int = b.int("unsigned int", 4, 0);
        b.structure("", 4, &[("", int, 0)])
    };
    assert!(matches!(refused(anonymous), E::Anonymous { field, .. } if field == "f.<anonymous>"));
}

#[test]
fn refuses_structs_that_are_no_scope() {
    let mut b = Builder::new();
    b.structure("policy_task", 0, &[]);
    assert_eq!(read(&b), Err(SchemaError::EmptyScope { scope: Scope::Task }));

    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1, 0);
    let names: Vec<String> = (0..65).map(|i| format!("f{i}")).collect();
    let mut members: Vec<_> = names.iter().enumerate().map(|(i, n)| (n.as_str(), byte, i as u32)).collect();
    b.structure("policy_task", 65, &members);
    assert_eq!(read(&b), Err(SchemaError::TooManyColumns { scope: Scope::Task, count: 65 }));

    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1, 0);
    members.pop();
    b.structure("policy_task", 65, &members);
    assert_eq!(read(&b).unwrap().scopes[&Scope::Task].len(), 64);
    b.structure("policy_task", 1, &[("f", byte, 0)]);
    assert_eq!(read(&b), Err(SchemaError::DuplicateScope { scope: Scope::Task }));

    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1, 0);
    b.structure("policy_task", 1, &[(&"n".repeat(64), byte, 0)]);
    assert!(matches!(read(&b), Err(SchemaError::NameTooLong { .. })));

    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1, 0);
    b.structure("policy_task", 2, &[("f", byte, 0), ("f", byte, 1)]);
    assert!(matches!(read(&b), Err(SchemaError::DuplicateField { .. })));
}

#[test]
fn reads_defaults() {
    assert_eq!(with_default(&u(32), "20"), Ok(Some(20)));
    assert_eq!(with_default(&u(64), "0xffffffffffffffff"), Ok(Some(u64::MAX.into())));
    assert_eq!(with_default(&s(8), "-128"), Ok(Some(-128)));
    assert_eq!(with_default(&s(8), "-0x80"), Ok(Some(-128)));
    assert_eq!(with_default(&Type::Bool, "true"), Ok(Some(1)));
    assert_eq!(with_default(&Type::Bool, "0"), Ok(Some(0)));
    assert_eq!(with_default(&Type::Enum { size: 4, signed: false }, "2"), Ok(Some(2)));
    assert_eq!(with_default(&array(array(u(16), 2), 3), "65535"), Ok(Some(65535)));
}

#[test]
fn refuses_wrong_defaults() {
    use SchemaError as E;
    for (ty, text) in [
        (u(8), "256"),
        (u(8), "-1"),
        (s(8), "128"),
        (s(8), "-129"),
        (Type::Enum { size: 4, signed: true }, "0x80000000"),
        (s(64), "9223372036854775808"),
        (Type::Bool, "2"),
        (array(u(8), 4), "256"),
    ] {
        assert!(matches!(with_default(&ty, text), Err(E::DefaultTooBig { .. })), "{ty} {text}");
    }
    let far = "9".repeat(60);
    for text in ["", "x", "1 + 1", "20ULL", "--1", "+1", "0x", "0x-1", "0x+1", "-", "true", "ff", &far] {
        assert!(matches!(with_default(&u(32), text), Err(E::DefaultNotInteger { .. })), "{text}");
    }
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let inner = b.structure("inner", 4, &[("a", int, 0)]);
    let st = b.structure("policy_task", 4, &[("f", inner, 0)]);
    let mut twice = b.clone();
    b.tag("scx:default=0", st, 0);
    assert!(matches!(read(&b), Err(E::DefaultOnStruct { .. })));
    twice.tag("scx:default=1", inner, 0);
    let error = read(&twice).unwrap_err();
    assert!(matches!(&error, E::MisplacedTag { place, .. } if place == "struct inner.a"), "{error}");

    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let st = b.structure("policy_task", 4, &[("f", int, 0)]);
    b.tag("scx:default=1", st, 0);
    b.tag("scx:default=1", st, 0);
    assert!(matches!(read(&b), Err(E::TwoTags { tag: "default", .. })));
}

#[test]
fn unknown_tags_are_errors_and_those_of_others_are_not() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let st = b.structure("policy_task", 4, &[("f", int, 0)]);
    b.tag("somebody else's", st, 0);
    assert!(read(&b).is_ok());
    let mut typo = b.clone();
    typo.tag("scx:defualt=1", st, 0);
    let error = read(&typo).unwrap_err().to_string();
    assert!(error.contains("task.f") && error.contains("scx:defualt=1"), "{error}");
    let mut on_struct = b.clone();
    on_struct.tag("scx:default=1", st, -1);
    assert!(matches!(read(&on_struct), Err(SchemaError::MisplacedTag { .. })));
    let mut on_func = b;
    let func = on_func.func("f", &[("p", int)]);
    on_func.tag("scx:whatever", func, 0);
    assert!(matches!(read(&on_func), Err(SchemaError::UnknownTag { .. })));
}

#[test]
fn reads_queues() {
    let mut b = Builder::new();
    let int = b.int("unsigned long", 8, 0);
    let (shared, other) = (b.var("shared", int), b.var("other", int));
    b.tag("scx:queue=vtime", shared, -1);
    b.tag("scx:queue=fifo", other, -1);
    let queues: Vec<_> = read(&b).unwrap().queues.into_iter().map(|q| (q.name, q.order)).collect();
    assert_eq!(queues, [("shared".into(), QueueOrder::Vtime), ("other".into(), QueueOrder::Fifo)]);
    let mut twice = b.clone();
    twice.tag("scx:queue=fifo", shared, -1);
    assert!(matches!(read(&twice), Err(SchemaError::DuplicateQueue { .. })));
    let third = b.var("third", int);
    b.tag("scx:queue=lifo", third, -1);
    assert!(matches!(read(&b), Err(SchemaError::QueueOrder { order, .. }) if order == "lifo"));
}

#[test]
fn reads_the_span_of_a_queue() {
    let with = |tag: &str| {
        let mut b = Builder::new();
        let int = b.int("unsigned long", 8, 0);
        let var = b.var("q", int);
        b.tag(&format!("scx:queue={tag}"), var, -1);
        read(&b).map(|schema| schema.queues)
    };
    for order in [QueueOrder::Fifo, QueueOrder::Vtime] {
        for span in QueueSpan::ALL {
            let queue = Queue { name: "q".into(), order, span };
            assert_eq!(with(&queue.to_string()).unwrap(), [queue]);
        }
    }
    for (tag, unknown) in
        [("fifo,", ""), ("fifo,per-node", "per-node"), ("vtime,per-cpu,per-llc", "per-cpu,per-llc")]
    {
        assert!(matches!(with(tag), Err(SchemaError::QueueSpan { span, .. }) if span == unknown), "{tag}");
    }
    assert!(matches!(with("per-cpu"), Err(SchemaError::QueueOrder { order, .. }) if order == "per-cpu"));
}

#[test]
fn a_queue_of_before_there_were_spans_is_a_single_one() {
    let queue: Queue = serde_json::from_str(r#"{ "name": "q", "order": "fifo" }"#).unwrap();
    assert_eq!(queue.span, QueueSpan::One);
    assert_eq!(serde_json::to_string(&queue).unwrap(), r#"{"name":"q","order":"fifo"}"#);
    let cpu = Queue { span: QueueSpan::Cpu, ..queue };
    assert_eq!(serde_json::to_string(&cpu).unwrap(), r#"{"name":"q","order":"fifo","span":"cpu"}"#);
}

#[test]
fn a_policy_has_so_many_queues_and_no_more() {
    let with = |count: usize| {
        let mut b = Builder::new();
        let int = b.int("unsigned long", 8, 0);
        for i in 0..count {
            let var = b.var(&format!("q{i}"), int);
            b.tag("scx:queue=fifo,per-cgroup", var, -1);
        }
        read(&b).map(|schema| schema.queues.len())
    };
    assert_eq!(with(MAX_QUEUES), Ok(MAX_QUEUES));
    let error = with(MAX_QUEUES + 1).unwrap_err();
    assert_eq!(error, SchemaError::TooManyQueues { count: MAX_QUEUES + 1 });
    assert!(error.to_string().contains("there are 17 queues, at most 16 can be"), "{error}");
}

#[test]
fn objects_without_btf_are_named() {
    assert!(matches!(
        Schema::from_object(b"#!/bin/sh"),
        Err(SchemaError::Object(ObjectError::NotElf { .. }))
    ));
}

/// What comes of a field of type `ty` with these tags.
fn with_tags(ty: &Type, tags: &[&str]) -> Result<Column, SchemaError> {
    let mut b = Builder::new();
    let id = b.ty(ty);
    let st = b.structure("policy_cgroup", 64, &[("f", id, 0)]);
    for tag in tags {
        b.tag(tag, st, 0);
    }
    let hist = array(u(32), 4);
    b.conversions([("other", ty, ty), ("forth", &hist, ty), ("back", ty, &hist)].into_iter());
    read(&b).map(|schema| schema.scopes[&Scope::Cgroup][0].clone())
}

#[test]
fn reads_rules_and_units() {
    let column =
        with_tags(&u(64), &["scx:from= old ", "scx:scale=1 / 1000 + 5", "scx:unit=\"us\"", "scx:saturate"]);
    let column = column.unwrap();
    assert_eq!((column.unit(), column.rule.from.as_deref()), (Some("us"), Some("old")));
    assert_eq!(column.rule.scale, Some(Scale { mul: 1, div: 1000, add: 5 }));
    assert!(column.rule.saturate && column.rule.derives() && column.rule.convert.is_none());
    let column = with_tags(&u(64), &["scx:inverse=back", "scx:convert=forth", "scx:default=3"]).unwrap();
    let convert = column.rule.convert.unwrap();
    assert_eq!((convert.program.as_str(), convert.inverse.as_deref()), ("forth", Some("back")));
    let plain = with_tags(&array(s(8), 4), &["scx:scale=-2"]).unwrap();
    assert!(plain.rule.scale.is_some() && plain.unit().is_none());
    assert!(!plain.momentary && !plain.is_time_stamp());
    let since = with_tags(&u(64), &["scx:momentary", "scx:unit=ns@scx_bpf_now"]).unwrap();
    assert!(since.momentary && since.is_time_stamp());
    assert!(with_tags(&union(u(64)), &["scx:from=x", "scx:saturate"]).is_ok());
}

#[test]
fn conversions_are_found_by_name_with_their_types() {
    let hist = array(u(32), 16);
    let object = |list: &[(&str, &Type, &Type)], tags: &[&str]| {
        let mut b = Builder::new();
        let id = b.ty(&u(64));
        let st = b.structure("policy_task", 8, &[("f", id, 0)]);
        for tag in tags {
            b.tag(tag, st, 0);
        }
        b.conversions(list.iter().copied());
        read(&b)
    };
    let both = ["scx:convert=forth", "scx:inverse=back"];
    let list = [("unused", &s(8), &hist), ("forth", &hist, &u(64)), ("back", &u(64), &hist)];
    let schema = object(&list, &both).unwrap();
    let forth = Signature { number: 1, from: hist.clone(), to: u(64) };
    let back = Signature { number: 2, from: u(64), to: hist.clone() };
    assert_eq!(schema.conversions, [("forth".into(), forth), ("back".into(), back)].into());

    let refused = |list: &[(&str, &Type, &Type)], part: &str| {
        let error = object(list, &both).unwrap_err().to_string();
        assert!(error.starts_with("task.f") && error.contains(part), "{error}");
    };
    refused(&[], "`scx:convert=forth` names no conversion");
    refused(&list[..2], "`scx:inverse=back` names no conversion");
    refused(&[("forth", &hist, &s(64)), list[2]], "`forth` gives `s64`, and the column is `u64`");
    refused(&[list[1], ("back", &u(32), &hist)], "`back` takes `u32`, and the column is `u64`");
    refused(&[list[1], ("back", &u(64), &u(8))], "`back` gives `u8`, and what `forth` takes is `u32[16]`");
    refused(&[("forth", &array(u(8), 65), &u(64)), list[2]], "65 bytes is more than");
}

#[test]
fn refuses_rules_that_make_no_sense() {
    use SchemaError as E;
    let error = |tags: &[&str]| {
        let error = with_tags(&u(64), tags).unwrap_err();
        assert!(error.to_string().starts_with("cgroup.f: "), "{error}");
        error
    };
    assert!(matches!(error(&["scx:scale=1/0"]), E::BadScale { .. }));
    assert!(matches!(error(&["scx:scale"]), E::UnknownTag { .. }));
    assert!(matches!(error(&["scx:saturate=1"]), E::TagValue { tag: "saturate", .. }));
    assert!(matches!(error(&["scx:momentary=1"]), E::TagValue { tag: "momentary", .. }));
    assert!(matches!(error(&["scx:from=f"]), E::FromItself { .. }));
    for text in ["", "2x", "a b", "a.b", &"n".repeat(64)] {
        assert!(matches!(error(&[&format!("scx:from={text}")]), E::BadName { tag: "from", .. }), "{text}");
    }
    for text in ["", "n s", "µs", &"n".repeat(32)] {
        assert!(matches!(error(&[&format!("scx:unit={text}")]), E::BadUnit { .. }), "{text}");
    }
    assert!(matches!(error(&["scx:convert=p", "scx:scale=2"]), E::Contradiction { one: "scale", .. }));
    assert!(matches!(error(&["scx:convert=p", "scx:saturate"]), E::Contradiction { one: "saturate", .. }));
    assert!(matches!(error(&["scx:inverse=p"]), E::InverseAlone { .. }));
    assert!(matches!(error(&["scx:unit=ns", "scx:unit=ns"]), E::TwoTags { tag: "unit", .. }));
    for ty in [Type::Bool, array(Type::Bool, 2), union(u(64))] {
        assert!(matches!(with_tags(&ty, &["scx:scale=2"]), Err(E::ScaleOnOther { .. })), "{ty}");
    }
    assert!(matches!(with_tags(&union(u(8)), &["scx:default=2"]), Err(E::DefaultOnStruct { .. })));
    // Only the fields of the scope's struct are columns.
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let inner = b.structure("inner", 4, &[("a", int, 0)]);
    b.structure("policy_task", 4, &[("f", inner, 0)]);
    b.tag("scx:saturate", inner, 0);
    assert!(matches!(read(&b), Err(E::MisplacedTag { .. })));
}

#[test]
fn reads_unions_as_bytes() {
    let mut b = Builder::new();
    let (long, byte) = (b.int("unsigned long", 8, 0), b.int("char", 1, SIGNED));
    let half = b.structure("", 2, &[("lo", byte, 0), ("hi", byte, 1)]);
    let both = b.union("both", 8, &[("all", long), ("", half)]);
    b.structure("policy_task", 8, &[("u", both, 0)]);
    let schema = read(&b).unwrap();
    let ty = &schema.scopes[&Scope::Task][0].ty;
    let Type::Bytes { size: 8, align: 8, view } = ty else { panic!("{ty}") };
    assert_eq!(view.0.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["all", ""]);
    assert_eq!((ty, ty.to_string()), (&union(s(64)), "union(8 bytes)".to_owned()));
    assert!(schema.structs.contains_key("both"));
}

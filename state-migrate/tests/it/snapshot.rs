//! Making snapshots, and reading them back.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use state_migrate::snapshot::{
    BootId, CgroupPath, MAX_CGROUPS, MAX_TEXT, Meta, NoKey, Pick, SavedColumn, Selection, Table, TaskKey,
    VERSION, Version,
};
use state_migrate::{Layout, Scope, Snapshot, SnapshotError, StructField, Type};

use crate::builder::{array, s, u};
use crate::corpus::schemas;

pub fn saved(name: &str, ty: Type) -> SavedColumn {
    SavedColumn { name: name.into(), ty, unit: None }
}

pub fn path(path: &str) -> CgroupPath {
    CgroupPath::new(path).unwrap()
}

pub fn boot() -> BootId {
    "5f2a6c0e-93d1-4be7-8a10-cdef00112233".parse().unwrap()
}

pub fn task(pid: u32, start_ns: u64) -> TaskKey {
    TaskKey { pid, start_ns }
}

/// One value only.
pub fn tiny() -> Snapshot {
    let global = Table::new(vec![saved("n", u(8))], [(NoKey, vec![7])]).unwrap();
    Snapshot { global, ..Snapshot::default() }
}

/// Something of everything.
pub fn full() -> Snapshot {
    let meta = Meta {
        created_unix: 1_790_000_000,
        boot_id: boot(),
        policy: "scx_fair".into(),
        version: "0.2.0".into(),
        kernel: "6.18.15+deb13-cloud-amd64".into(),
    };
    let field = |name: &str, offset, ty| StructField { name: name.into(), offset, ty };
    let fields = vec![field("a", 0, Type::Bool), field("b", 4, array(u(16), 2))];
    let stats = Type::Struct { size: 8, align: 4, fields };
    let lag = SavedColumn { unit: Some("ns".into()), ..saved("lag", s(64)) };
    let tasks = [(task(1, 5), vec![1; 16]), (task(1, 9), vec![2; 16]), (task(40_000, 1), vec![3; 16])];
    let cgroups = [(path("/"), vec![1; 12]), (path("/a"), vec![2; 12]), (path("/a/b.slice"), vec![3; 12])];
    let modes = vec![saved("mode", Type::Enum { size: 4, signed: true }), saved("w", array(u(32), 2))];
    let cpus = (0..3).map(|cpu| (cpu, vec![cpu as u8; 2]));
    Snapshot {
        meta,
        tasks: Table::new(vec![lag, saved("stats", stats)], tasks).unwrap(),
        cgroups: Table::new(modes, cgroups).unwrap(),
        cpus: Table::new(vec![saved("on", Type::Bool), saved("llc", u(8))], cpus).unwrap(),
        global: Table::new(vec![saved("clock", u(64))], [(NoKey, 77u64.to_le_bytes().to_vec())]).unwrap(),
    }
}

#[test]
fn what_is_written_is_read() {
    for snapshot in [Snapshot::default(), tiny(), full()] {
        let bytes = snapshot.to_bytes().unwrap();
        let read = Snapshot::from_bytes(&bytes).unwrap();
        assert_eq!(read, snapshot);
        assert_eq!(read.to_bytes().unwrap(), bytes);
    }
    assert_eq!(full().tasks.value(&task(1, 9), "stats"), Some(&[2; 8][..]));
    assert_eq!(full().tasks.value(&task(1, 8), "stats"), None);
    assert_eq!(full().tasks.value(&task(1, 9), "other"), None);
    assert_eq!(full().cgroups.keys()[2].relative().to_str(), Some("a/b.slice"));
}

#[test]
fn the_format_is_as_documented() {
    let bytes = tiny().to_bytes().unwrap();
    let mut want = b"SCXSNAP\0".to_vec();
    want.extend([1, 0, 0, 0]);
    want.extend((bytes.len() as u64).to_le_bytes());
    want.extend(crc32fast::hash(&want).to_le_bytes());
    // Meta: time, boot id, three empty texts.
    want.extend([1, 0, 30, 0, 0, 0]);
    want.extend([0; 30]);
    // Task, cgroup, cpu: no columns, no rows.
    for section in 2..5 {
        want.extend([section, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    // Global: one column `n` without a unit, an unsigned integer of one byte; one row of 7.
    want.extend([5, 0, 12, 0, 0, 0, 1, 0, 1, b'n', 0, 1, 1, 1, 0, 0, 0, 7]);
    want.extend(crc32fast::hash(&want).to_le_bytes());
    assert_eq!(bytes, want);
}

#[test]
fn the_order_of_columns_and_rows_does_not_count() {
    let (a, b) = (saved("a", u(16)), saved("b", u(8)));
    let one = Table::new(vec![a.clone(), b.clone()], [(0, vec![1, 2, 3]), (1, vec![4, 5, 6])]).unwrap();
    let other = Table::new(vec![b, a], [(1, vec![6, 4, 5]), (0, vec![3, 1, 2])]).unwrap();
    assert_eq!(one, other);
    assert_eq!(other.value(&1, "a"), Some(&[4, 5][..]));
    assert_eq!(other.rows().next(), Some((&0, &[1, 2, 3][..])));
    let bytes = |cpus| Snapshot { cpus, ..Snapshot::default() }.to_bytes().unwrap();
    assert_eq!(bytes(one), bytes(other));
}

#[test]
fn tables_hold_only_what_fits() {
    use SnapshotError as E;
    let one = |column| Table::new(vec![column], [(0u32, vec![1; 4])]).unwrap_err();
    let named = |name: &str| one(saved(name, u(32)));
    assert!(matches!(named(&"n".repeat(64)), E::Text { what: "column", .. }));
    assert!(matches!(named(""), E::Text { what: "column", .. }));
    assert!(matches!(named("a\nb"), E::Text { what: "column", .. }));
    let unit = |unit: &str| one(SavedColumn { unit: Some(unit.into()), ..saved("c", u(32)) });
    assert!(matches!(unit(""), E::Text { what: "unit", .. }));
    assert!(matches!(unit(&"u".repeat(32)), E::Text { what: "unit", .. }));

    let twice = Table::new(vec![saved("a", u(8)), saved("a", u(16))], [(0u32, vec![0; 3])]);
    assert!(matches!(twice, Err(E::DuplicateColumn { column }) if column == "a"));
    let text = Table::new(vec![saved("a", u(8))], [(3u32, vec![0]), (3, vec![1])]).unwrap_err().to_string();
    assert!(text.starts_with("3 is there twice"), "{text}");
    let text = Table::new(vec![saved("a", u(32))], [(task(8, 2), vec![0; 3])]).unwrap_err().to_string();
    assert!(text.contains("task 8") && text.contains("3 bytes") && text.contains("have 4"), "{text}");
    let no_columns = Table::new(Vec::new(), [(path("/x"), Vec::new())]).unwrap_err().to_string();
    assert!(no_columns.starts_with("cgroup \"/x\" has 0 bytes"), "{no_columns}");
    let text = Table::new(Vec::new(), [(NoKey, vec![1])]).unwrap_err().to_string();
    assert!(text.starts_with("the global record has 1 bytes"), "{text}");
    let many: Vec<_> = (0..65).map(|i| saved(&format!("c{i}"), u(8))).collect();
    assert!(matches!(Table::<u32>::new(many, []), Err(E::Limit { what: "columns", found: 65, max: 64 })));
    let cpus = (0..65_537).map(|cpu| (cpu, vec![0]));
    assert!(matches!(Table::new(vec![saved("a", u(8))], cpus), Err(E::Limit { what: "CPUs", .. })));
    let wide = saved("a", array(u(64), 1 << 17));
    let cgroups = (0..257).map(|i| (path(&format!("/{i}")), vec![0; 1 << 20]));
    assert!(matches!(Table::new(vec![wide], cgroups), Err(E::Limit { what: "bytes", .. })));
    assert_eq!(MAX_CGROUPS, 1 << 20);
}

#[test]
fn columns_have_types_that_policies_can_have() {
    let refused = |ty| match Table::<NoKey>::new(vec![saved("c", ty)], []) {
        Err(SnapshotError::BadType { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let structure = |size, align, fields: &[(&str, u32, Type)]| {
        let field = |f: &(&str, u32, Type)| StructField { name: f.0.into(), offset: f.1, ty: f.2.clone() };
        Type::Struct { size, align, fields: fields.iter().map(field).collect() }
    };
    assert!(refused(Type::Int { size: 3, signed: true }).contains("1, 2, 4 or 8"));
    assert!(refused(Type::Enum { size: 0, signed: true }).contains("1, 2, 4 or 8"));
    assert!(refused(array(u(8), 0)).contains("without elements"));
    assert!(refused(array(u(8), (1 << 20) + 1)).contains("too large"));
    assert!(refused(array(array(u(8), 1 << 20), u32::MAX)).contains("too large"));
    let deep = (0..12).fold(u(8), |ty, _| array(ty, 1));
    assert!(refused(deep).contains("too deep"));
    assert!(refused(structure(1 << 21, 8, &[("a", 0, u(8))])).contains("too large"));
    assert!(refused(structure(6, 4, &[("a", 0, u(8))])).contains("alignment"));
    assert!(refused(structure(48, 16, &[("a", 0, u(8))])).contains("alignment"));
    assert!(refused(structure(8, 8, &[])).contains("without fields"));
    assert!(refused(structure(8, 8, &[("", 0, u(8))])).contains("name"));
    assert!(refused(structure(8, 8, &[("a\n", 0, u(8))])).contains("control characters"));
    assert!(refused(structure(8, 8, &[("a", 0, u(24))])).contains("1, 2, 4 or 8"));
    assert!(refused(structure(8, 8, &[("a", 0, u(32)), ("b", 3, u(8))])).contains("overlap"));
    assert!(refused(structure(8, 8, &[("a", 4, u(64))])).contains("out of its struct"));
    let many: Vec<_> = (0..4096).map(|i| (format!("f{i}"), i, u(8))).collect();
    let many: Vec<_> = many.iter().map(|(n, i, t)| (n.as_str(), *i, t.clone())).collect();
    assert!(refused(structure(4096, 1, &many)).contains("too many"));
}

#[test]
fn paths_of_cgroups_stay_in_the_hierarchy() {
    for good in ["/", "/a", "/a/..b", "/user.slice/user-0.slice/a b", "/...", "/\u{e9}"] {
        assert_eq!(path(good).as_path().to_str(), Some(good));
    }
    assert_eq!(path("/").relative().to_str(), Some(""));
    let long = format!("/{}", "a".repeat(4095));
    for bad in ["", "a", "a/b", "//", "/a/", "/a//b", "/.", "/a/..", "/../etc", "/a\nb", "/a\0", &long] {
        let error = CgroupPath::new(bad).unwrap_err();
        assert!(matches!(error, SnapshotError::CgroupPath { .. }), "{bad}");
    }
    let text = CgroupPath::new("/a/../b").unwrap_err().to_string();
    assert!(text.contains("\"/a/../b\"") && text.contains("`..`"), "{text}");
}

#[test]
fn boot_ids_are_as_the_kernel_writes_them() {
    let text = "5f2a6c0e-93d1-4be7-8a10-cdef00112233";
    assert_eq!(format!("{text}\n").parse::<BootId>().unwrap().to_string(), text);
    for bad in ["", "5f2a6c0e", "5f2a6c0e-93d1-4be7-8a10-cdef0011223g", "é"] {
        assert!(matches!(bad.parse::<BootId>(), Err(SnapshotError::BootId { .. })), "{bad}");
    }
}

#[test]
fn meta_is_bounded() {
    let mut snapshot = full();
    snapshot.meta.kernel = "k".repeat(MAX_TEXT);
    assert!(snapshot.to_bytes().is_ok());
    snapshot.meta.kernel.push('k');
    let text = snapshot.to_bytes().unwrap_err().to_string();
    assert!(text.starts_with("kernel") && text.contains("too long"), "{text}");
    snapshot.meta.kernel = "\x1b[2J".into();
    assert!(matches!(snapshot.to_bytes(), Err(SnapshotError::Text { .. })));
}

#[test]
fn a_file_is_bounded() {
    let wide = || vec![saved("a", array(u(64), 1 << 17))];
    let cgroups = (0..255).map(|i| (path(&format!("/{i}")), vec![0; 1 << 20]));
    let tasks = (0..2).map(|pid| (task(pid, 0), vec![0; 1 << 20]));
    let (cgroups, tasks) = (Table::new(wide(), cgroups).unwrap(), Table::new(wide(), tasks).unwrap());
    let error = Snapshot { cgroups, tasks, ..Snapshot::default() }.to_bytes().unwrap_err();
    assert!(matches!(error, SnapshotError::Limit { what: "bytes", .. }), "{error}");
}

#[test]
fn older_minor_versions_are_taken_and_no_others() {
    let version = |major, minor| Version { major, minor };
    let ours = version(2, 3);
    assert!([version(2, 0), version(2, 3)].into_iter().all(|v| ours.accepts(v).is_ok()));
    for newer in [version(2, 4), version(3, 0)] {
        let text = ours.accepts(newer).unwrap_err().to_string();
        assert!(text.contains(&newer.to_string()) && text.contains("2.3"), "{text}");
    }
    let text = ours.accepts(version(1, 9)).unwrap_err().to_string();
    assert!(text.contains("1.9") && text.contains("2.0") && text.contains("2.3"), "{text}");
    assert_eq!(VERSION.to_string(), "1.0");
}

#[test]
fn a_selection_takes_columns_out_of_records() {
    let schema = &schemas()[3].1;
    let sizes: Vec<_> = Scope::ALL.into_iter().map(|scope| (scope, 64)).collect();
    let layout = state_migrate::plan(&Layout::new(&sizes), None, schema, 2).unwrap().layout;
    let all = Selection::new(&layout, Scope::Task, 2, |_| Pick::Save);
    let table = all.table([(task(9, 1), layout.image(Scope::Task))]).unwrap();
    assert_eq!(table.value(&task(9, 1), "vtime"), Some(&7u64.to_le_bytes()[..]));
    assert_eq!(table.value(&task(9, 1), "extra"), Some(&(-2i16).to_le_bytes()[..]));
    let error = all.table([(task(9, 1), [0; 12])]).unwrap_err();
    assert!(matches!(error, SnapshotError::RecordSize { end: 16, len: 12, .. }), "{error}");

    let some = Selection::new(&layout, Scope::Task, 2, |c| {
        if c.name == "vtime" { Pick::SaveIn("ns".into()) } else { Pick::Skip }
    });
    let table = some.table([(task(9, 1), layout.image(Scope::Task))]).unwrap();
    assert_eq!(table.columns(), [SavedColumn { unit: Some("ns".into()), ..saved("vtime", u(64)) }]);

    let none = Selection::new(&layout, Scope::Task, 1, |_| Pick::Save);
    assert!(none.is_empty());
    assert_eq!(none.table([(task(9, 1), layout.image(Scope::Task))]).unwrap(), Table::default());
}

fn any_table<K: state_migrate::snapshot::Key + std::fmt::Debug + Clone>(
    key: impl Strategy<Value = K>,
) -> impl Strategy<Value = Table<K>> {
    let types = [u(8), s(64), Type::Bool, array(u(16), 3), Type::Enum { size: 4, signed: false }];
    let column = (prop::sample::select(types.to_vec()), prop::option::of("[a-z]{1,31}"));
    (btree_map("[a-z_]{1,63}", column, 1..6), btree_map(key, vec(any::<u8>(), 48), 0..20)).prop_map(
        |(columns, rows)| {
            let columns: Vec<_> =
                columns.into_iter().map(|(name, (ty, unit))| SavedColumn { name, ty, unit }).collect();
            let width: usize = columns.iter().map(|c| c.ty.size() as usize).sum();
            let cut = |(key, bytes): (K, Vec<u8>)| (key, bytes[..width].to_vec());
            Table::new(columns, rows.into_iter().map(cut)).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_snapshot_survives(
        tasks in any_table((any::<u32>(), any::<u64>()).prop_map(|(pid, start_ns)| TaskKey { pid, start_ns })),
        cgroups in any_table("(/[a-z]{1,9}){1,4}".prop_map(|p| CgroupPath::new(p).unwrap())),
        cpus in any_table(any::<u32>()),
        global in any_table(Just(NoKey)),
        (created_unix, boot, policy, kernel) in (any::<u64>(), any::<[u8; 16]>(), "[ -~]{0,40}", "\\PC{0,60}"),
    ) {
        let meta = Meta { created_unix, boot_id: BootId(boot), policy, version: "1.0".into(), kernel };
        let snapshot = Snapshot { meta, tasks, cgroups, cpus, global };
        let bytes = snapshot.to_bytes().unwrap();
        let read = Snapshot::from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
        prop_assert_eq!(read, snapshot);
    }
}

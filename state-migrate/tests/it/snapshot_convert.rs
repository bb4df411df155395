//! Snapshots of one version for another.

use std::collections::BTreeMap;

use state_migrate::snapshot::{Converted, Meta, NoKey, Same, SavedColumn, Table, convert};
use state_migrate::{Column, Conversion, Rule, Scale, Schema, Scope, Snapshot, Type};

use crate::builder::{array, column, s, u};
use crate::snapshot::{saved, task};

/// A snapshot of an older version, of this boot.
const OLDER: Same = Same { version: false, boot: true };

fn schema(scope: Scope, columns: Vec<Column>) -> Schema {
    Schema { scopes: BTreeMap::from([(scope, columns)]), ..Schema::default() }
}

fn global(columns: Vec<SavedColumn>, values: Vec<u8>) -> Snapshot {
    let global = Table::new(columns, [(NoKey, values)]).unwrap();
    Snapshot { meta: Meta::default(), global, ..Snapshot::default() }
}

fn fate<'c>(converted: &'c Converted, name: &str) -> &'c str {
    &converted.rows.iter().find(|r| r.column == name).unwrap().fate
}

fn value<'c>(converted: &'c Converted, name: &str) -> Option<&'c [u8]> {
    converted.snapshot.global.value(&NoKey, name)
}

#[test]
fn the_same_columns_are_carried() {
    let snapshot =
        global(vec![saved("a", u(32)), saved("b", s(64))], [&[1, 0, 0, 0][..], &[0xff; 8]].concat());
    let wanted = schema(Scope::Global, vec![column("b", s(64)), column("a", u(32))]);
    for same in [false, true] {
        let converted = convert(&snapshot, &wanted, Same { version: same, ..OLDER }).unwrap();
        assert_eq!(converted.snapshot.global, snapshot.global);
        assert_eq!((fate(&converted, "a"), fate(&converted, "b")), ("carried", "carried"));
    }
}

#[test]
fn others_go_by_the_rules_of_a_swap() {
    let columns = vec![
        saved("small", s(16)),
        SavedColumn { unit: Some("us".into()), ..saved("time_us", u(64)) },
        saved("list", array(u(16), 2)),
        saved("gone", u(8)),
    ];
    let values = [&(-5i16).to_le_bytes()[..], &7u64.to_le_bytes(), &[1, 0, 2, 0], &[9]].concat();
    let rescaled = Rule {
        from: Some("time_us".into()),
        scale: Some(Scale { mul: 1000, div: 1, add: 0 }),
        ..Rule::default()
    };
    let wanted = schema(
        Scope::Global,
        vec![
            column("small", s(64)),
            Column { unit: Some("ns".into()), rule: rescaled, ..column("time_ns", u(64)) },
            Column { default: Some(3), ..column("list", array(u(32), 3)) },
            Column { default: Some(1), ..column("fresh", u(8)) },
        ],
    );
    let converted = convert(&global(columns, values), &wanted, OLDER).unwrap();
    assert_eq!(value(&converted, "small"), Some(&(-5i64).to_le_bytes()[..]));
    assert_eq!(value(&converted, "time_ns"), Some(&7000u64.to_le_bytes()[..]));
    assert_eq!(value(&converted, "list"), Some(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0][..]));
    assert_eq!(value(&converted, "fresh"), None, "it keeps its default");
    for (name, wanted) in
        [("small", "converted"), ("time_ns", "converted"), ("fresh", "defaulted"), ("gone", "dropped")]
    {
        assert_eq!(fate(&converted, name), wanted, "{name}");
    }
    let unit = converted.snapshot.global.columns().iter().find(|c| c.name == "time_ns").unwrap();
    assert_eq!(unit.unit.as_deref(), Some("ns"));
}

/// The very same version has done the rescaling before it was saved.
#[test]
fn what_a_version_saved_itself_is_not_rescaled_again() {
    let rule = Rule { scale: Some(Scale { mul: 1000, div: 1, add: 0 }), ..Rule::default() };
    let wanted = schema(Scope::Global, vec![Column { rule, ..column("span", u(64)) }]);
    let snapshot = global(vec![saved("span", u(64))], 5000u64.to_le_bytes().to_vec());
    let own = convert(&snapshot, &wanted, Same { version: true, ..OLDER }).unwrap();
    assert_eq!(value(&own, "span"), Some(&5000u64.to_le_bytes()[..]));
    let older = convert(&snapshot, &wanted, OLDER).unwrap();
    assert_eq!(value(&older, "span"), Some(&5_000_000u64.to_le_bytes()[..]));
}

#[test]
fn what_is_refused_is_told_and_the_rest_goes_on() {
    let columns = vec![
        SavedColumn { unit: Some("us".into()), ..saved("span", u(64)) },
        saved("wide", u(64)),
        saved("made", u(32)),
        saved("fine", u(8)),
    ];
    let values = [&[1; 8][..], &[2; 8], &[3; 4], &[4]].concat();
    let made = Rule {
        convert: Some(Conversion { program: "make".into(), inverse: None }),
        from: Some("made".into()),
        ..Rule::default()
    };
    let wanted = schema(
        Scope::Global,
        vec![
            Column { unit: Some("ns".into()), ..column("span", u(64)) },
            column("wide", u(32)),
            Column { rule: made, ..column("product", u(64)) },
            column("fine", u(8)),
        ],
    );
    let converted = convert(&global(columns, values), &wanted, OLDER).unwrap();
    for name in ["span", "wide", "product"] {
        assert_eq!(fate(&converted, name), "refused", "{name}");
        assert_eq!(value(&converted, name), None, "{name}");
        let row = converted.rows.iter().find(|r| r.column == name).unwrap();
        assert!(row.reason.as_ref().is_some_and(|r| !r.is_empty()), "{name}");
    }
    assert_eq!(value(&converted, "fine"), Some(&[4][..]));
    let everything = schema(Scope::Global, vec![column("wide", Type::Bool)]);
    let nothing = convert(&global(vec![saved("wide", u(64))], vec![1; 8]), &everything, OLDER).unwrap();
    assert!(nothing.snapshot.global.columns().is_empty() && nothing.snapshot.global.keys().is_empty());
}

#[test]
fn rows_keep_their_keys() {
    let keys = [task(3, 30), task(1, 10), task(2, 20)];
    let rows = keys.map(|k| (k, (k.pid * 100).to_le_bytes().to_vec()));
    let tasks = Table::new(vec![saved("n", u(32))], rows).unwrap();
    let snapshot = Snapshot { tasks, ..Snapshot::default() };
    let wanted = schema(Scope::Task, vec![column("new", u(8)), column("n", u(64))]);
    let converted = convert(&snapshot, &wanted, OLDER).unwrap();
    for key in keys {
        let value = converted.snapshot.tasks.value(&key, "n");
        assert_eq!(value, Some(&u64::from(key.pid * 100).to_le_bytes()[..]));
    }
    assert_eq!(converted.snapshot.tasks.keys().len(), 3);
}

fn stamp(name: &str) -> Column {
    Column { unit: Some("ns@scx_bpf_now".into()), ..column(name, u(64)) }
}

/// Names of the columns that get a value, and the fates of all.
fn taken(snapshot: &Snapshot, wanted: &Schema, same: Same) -> (Vec<String>, BTreeMap<String, String>) {
    let converted = convert(snapshot, wanted, same).unwrap();
    let names = converted.snapshot.global.columns().iter().map(|c| c.name.clone()).collect();
    (names, converted.rows.into_iter().map(|r| (r.column, r.fate)).collect())
}

#[test]
fn time_stamps_do_not_outlive_their_boot() {
    let unit = |unit: &str, column: SavedColumn| SavedColumn { unit: Some(unit.into()), ..column };
    let columns = vec![
        unit("ns@scx_bpf_now", saved("began", u(64))),
        // Saved by a version that did not declare its unit yet.
        saved("since", u(64)),
        unit("us@bpf_ktime_get_ns", saved("woke", u(64))),
        unit("ns@scx_bpf_now", saved("last_stop_at_ns", u(64))),
        unit("ns", saved("used", u(64))),
        unit("1/1024@32ms", saved("util", u(64))),
    ];
    let snapshot = global(columns, [7; 48].to_vec());
    let ns = |name: &str| Column { unit: Some("ns".into()), ..column(name, u(64)) };
    let wanted = schema(
        Scope::Global,
        vec![
            stamp("began"),
            stamp("since"),
            // The new version does not declare the unit of what it takes from `woke`.
            Column { rule: Rule { from: Some("woke".into()), ..Rule::default() }, ..column("up", u(64)) },
            column("last_stop_at_ns", u(64)),
            ns("used"),
            Column { unit: Some("1/1024@32ms".into()), ..column("util", u(64)) },
            stamp("fresh"),
        ],
    );
    for version in [false, true] {
        let (names, fates) = taken(&snapshot, &wanted, Same { version, boot: false });
        assert_eq!(names, ["used", "util"]);
        for name in ["began", "since", "up", "last_stop_at_ns"] {
            assert_eq!(fates[name], "skipped", "{name}");
        }
        assert_eq!((fates["fresh"].as_str(), fates["used"].as_str()), ("defaulted", "carried"));
        let (names, fates) = taken(&snapshot, &wanted, Same { version, boot: true });
        assert_eq!(names, ["began", "last_stop_at_ns", "since", "up", "used", "util"]);
        assert!(fates.values().all(|fate| fate != "skipped"), "{fates:?}");
    }
}

#[test]
fn an_unknown_unit_of_another_policy_is_not_restored() {
    let mut snapshot = global(vec![saved("last_run_at", u(64)), saved("n", u(64))], [7; 16].to_vec());
    snapshot.meta.policy = "ours".into();
    let rule = Rule { from: Some("last_run_at".into()), ..Rule::default() };
    let columns = vec![Column { rule, ..stamp("began_at") }, column("n", u(64))];
    let wanted = |policy: &str| Schema { policy: policy.into(), ..schema(Scope::Global, columns.clone()) };
    let (names, fates) = taken(&snapshot, &wanted("theirs"), OLDER);
    assert_eq!((names, fates["began_at"].as_str()), (vec!["n".to_owned()], "refused"));
    let (names, fates) = taken(&snapshot, &wanted("ours"), OLDER);
    assert_eq!((names.len(), fates["began_at"].as_str()), (2, "converted"));
}

#[test]
fn what_is_true_only_at_a_moment_is_never_restored() {
    let columns = vec![saved("busy", u(64)), saved("older", u(32)), saved("kept", u(64))];
    let snapshot = global(columns, [7; 20].to_vec());
    let momentary = |column: Column| Column { momentary: true, ..column };
    let wanted = schema(
        Scope::Global,
        vec![
            momentary(column("busy", u(64))),
            momentary(Column {
                rule: Rule { from: Some("older".into()), ..Rule::default() },
                ..column("newer", u(64))
            }),
            column("kept", u(64)),
            momentary(stamp("since")),
        ],
    );
    for (version, boot) in [(false, false), (false, true), (true, false), (true, true)] {
        let (names, fates) = taken(&snapshot, &wanted, Same { version, boot });
        assert_eq!(names, ["kept"]);
        for name in ["busy", "newer", "since"] {
            assert_eq!(fates[name], "skipped", "{name}");
        }
    }
}

#[test]
fn a_snapshot_of_momentary_columns_alone_brings_nothing() {
    let snapshot = global(vec![saved("busy", u(64))], [7; 8].to_vec());
    let wanted = schema(Scope::Global, vec![Column { momentary: true, ..column("busy", u(64)) }]);
    let (names, fates) = taken(&snapshot, &wanted, OLDER);
    assert!(names.is_empty());
    assert_eq!(fates["busy"], "skipped");
}

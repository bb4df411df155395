//! Restoring snapshots into other layouts.

use std::collections::BTreeMap;

use state_migrate::snapshot::{
    BootId, Key, Match, NoKey, Restored, SavedColumn, ScopeRestore, Table, restore,
};
use state_migrate::{Column, Layout, LayoutError, MAX_RECORD, Placed, Schema, Scope, Snapshot, Type, plan};

use crate::builder::{array, column, s, u};
use crate::snapshot::{boot, full, path, saved, task};

/// The layout of a policy in slot 1, beside another in slot 0 that keeps the places from being the first ones.
fn layout(scope: Scope, columns: Vec<Column>) -> Layout {
    let schema = |columns| Schema { scopes: BTreeMap::from([(scope, columns)]), ..Schema::default() };
    let sizes: Vec<_> = Scope::ALL.into_iter().map(|scope| (scope, 128)).collect();
    let other = schema(vec![column("other", u(64)), column("clock", u(32))]);
    let first = plan(&Layout::new(&sizes), None, &other, 0).unwrap().layout;
    plan(&first, None, &schema(columns), 1).unwrap().layout
}

fn no_unit(_: Scope, _: &str) -> Option<String> {
    None
}

/// What is stored and where.
type Patches = Vec<(u32, Vec<u8>)>;

fn rows<K: Key + Clone>(restore: &ScopeRestore<K>) -> Vec<(K, Patches)> {
    let owned = |(at, bytes): (u32, &[u8])| (at, bytes.to_vec());
    restore.records().map(|(key, patches)| (key.clone(), patches.map(owned).collect())).collect()
}

fn verdict<'r>(restored: &'r Restored, name: &str) -> &'r Match {
    &restored.columns.iter().find(|c| c.saved.name == name).unwrap().matched
}

#[test]
fn values_go_where_the_layout_has_their_columns() {
    let layout = layout(Scope::Cpu, vec![column("llc", u(8)), column("on", Type::Bool)]);
    let snapshot = full();
    let restored = restore(&snapshot, &layout, 1, BootId::default(), no_unit);
    let at = |name, ty| layout.offset(Scope::Cpu, name, &ty).unwrap();
    let (llc, on) = (at("llc", u(8)), at("on", Type::Bool));
    for (cpu, (key, mut patches)) in rows(&restored.cpus).into_iter().enumerate() {
        patches.sort();
        let mut want = [(llc, vec![cpu as u8]), (on, vec![cpu as u8])];
        want.sort();
        assert_eq!((key, &patches[..]), (cpu as u32, &want[..]));
    }
    assert!(restored.untouched.is_empty());
    assert_eq!(verdict(&restored, "llc"), &Match::Restored { offset: llc });
    assert!(!restored.cpus.is_empty() && restored.global.is_empty());
}

#[test]
fn columns_that_do_not_match_are_skipped_and_named() {
    let columns = vec![column("mode", u(32)), column("weight", u(32))];
    let layout = layout(Scope::Cgroup, columns);
    let snapshot = full();
    let restored = restore(&snapshot, &layout, 1, boot(), no_unit);
    assert_eq!(verdict(&restored, "mode"), &Match::OtherType { wanted: u(32) });
    assert_eq!(verdict(&restored, "w"), &Match::Unknown);
    assert!(restored.cgroups.is_empty() && rows(&restored.cgroups).is_empty());
    // The other slot's column is no column of this policy.
    assert_eq!(verdict(&restored, "clock"), &Match::Unknown);
    let untouched: Vec<_> = restored.untouched.iter().map(|(s, n)| format!("{s}.{n}")).collect();
    assert_eq!(untouched, ["cgroup.mode", "cgroup.weight"]);
    let text: Vec<String> = restored.columns.iter().map(ToString::to_string).collect();
    assert!(
        text.contains(&"cgroup.mode: senum32 skipped: the policy has it as `u32`".to_owned()),
        "{text:?}"
    );
    assert!(text.contains(&"cgroup.w: u32[2] skipped: the policy has no such column".to_owned()), "{text:?}");
}

#[test]
fn units_must_agree() {
    let layout = layout(Scope::Task, vec![column("lag", s(64))]);
    let snapshot = full();
    let in_unit = |unit: &'static str| move |_: Scope, name: &str| (name == "lag").then(|| unit.to_owned());
    let restored = restore(&snapshot, &layout, 1, boot(), in_unit("ns"));
    let offset = layout.offset(Scope::Task, "lag", &s(64)).unwrap();
    assert_eq!(verdict(&restored, "lag"), &Match::Restored { offset });
    assert_eq!(rows(&restored.tasks)[1], (task(1, 9), vec![(offset, vec![2; 8])]));
    assert_eq!(restored.columns[0].to_string(), format!("task.lag: s64 restored at {offset}"));

    let restored = restore(&snapshot, &layout, 1, boot(), in_unit("us"));
    assert_eq!(verdict(&restored, "lag"), &Match::OtherUnit { wanted: Some("us".into()) });
    let text = restored.columns[0].to_string();
    assert!(text.ends_with("saved with unit `ns`, the policy has unit `us`"), "{text}");
    let restored = restore(&snapshot, &layout, 1, boot(), no_unit);
    assert!(
        restored.columns[0].to_string().ends_with("the policy has no unit"),
        "a unit and none differ too"
    );
}

#[test]
fn tasks_of_another_boot_are_no_tasks_of_this_one() {
    let layout = layout(Scope::Task, vec![column("stats", full().tasks.columns()[1].ty.clone())]);
    let snapshot = full();
    assert_eq!(rows(&restore(&snapshot, &layout, 1, boot(), no_unit).tasks).len(), 3);
    let restored = restore(&snapshot, &layout, 1, BootId([1; 16]), no_unit);
    assert!(restored.tasks.is_empty() && rows(&restored.tasks).is_empty());
    assert_eq!(verdict(&restored, "stats"), &Match::OtherBoot);
    assert!(restored.columns[1].to_string().ends_with("its tasks are of another boot"));
    assert_eq!(restored.untouched, [(Scope::Task, "stats".to_owned())]);
}

#[test]
fn what_was_saved_comes_back_whatever_the_layout() {
    let columns = |order: [usize; 3]| {
        let all = [column("a", u(16)), column("b", array(u(8), 5)), column("c", s(64))];
        order.map(|i| all[i].clone()).to_vec()
    };
    let values: Vec<u8> = (1..16).collect();
    let table = vec![saved("b", array(u(8), 5)), saved("a", u(16)), saved("c", s(64))];
    let global = Table::new(table, [(NoKey, values)]).unwrap();
    let snapshot = Snapshot { global, ..Snapshot::default() };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let layout = layout(Scope::Global, columns(order));
        let restored = restore(&snapshot, &layout, 1, boot(), no_unit);
        let mut record = layout.image(Scope::Global);
        for (at, bytes) in &rows(&restored.global)[0].1 {
            record[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let value = |name, ty: Type| {
            let at = layout.offset(Scope::Global, name, &ty).unwrap() as usize;
            record[at..at + ty.size() as usize].to_vec()
        };
        assert_eq!(value("b", array(u(8), 5)), [1, 2, 3, 4, 5]);
        assert_eq!(value("a", u(16)), [6, 7]);
        assert_eq!(value("c", s(64)), [8, 9, 10, 11, 12, 13, 14, 15]);
    }
}

#[test]
fn a_column_without_rows_restores_nothing() {
    let layout = layout(Scope::Cgroup, vec![column("n", u(8))]);
    let none = Table::new(vec![saved("n", u(8))], []).unwrap();
    let snapshot = Snapshot { cgroups: none, ..Snapshot::default() };
    let restored = restore(&snapshot, &layout, 1, boot(), no_unit);
    assert!(restored.cgroups.is_empty());
    assert!(matches!(verdict(&restored, "n"), Match::Restored { .. }));
    let unit = SavedColumn { unit: Some("x".into()), ..saved("n", u(8)) };
    let cgroups = Table::new(vec![unit], [(path("/a"), vec![1])]).unwrap();
    let snapshot = Snapshot { cgroups, ..Snapshot::default() };
    let restored = restore(&snapshot, &layout, 1, boot(), no_unit);
    assert!(restored.cgroups.is_empty(), "a unit that the policy does not know");
}

#[test]
fn layouts_from_outside_are_checked() {
    let good = layout(Scope::Task, vec![column("a", u(16)), column("b", u(64))]);
    assert_eq!(good.check(), Ok(()));
    let wrong = |edit: &dyn Fn(&mut Placed)| {
        let mut layout = good.clone();
        edit(layout.scopes.get_mut(&Scope::Task).unwrap().columns.last_mut().unwrap());
        match layout.check() {
            Err(LayoutError::Column { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert!(wrong(&|c| c.offset = 0).contains("overlaps"));
    assert!(wrong(&|c| c.offset = 8).contains("overlaps"));
    assert!(wrong(&|c| c.offset += 1).contains("aligned"));
    assert!(wrong(&|c| c.offset = 128).contains("past the end"));
    assert!(wrong(&|c| c.offset = u32::MAX - 7).contains("past the end"));
    assert!(wrong(&|c| c.slots.clear()).contains("no slot"));
    assert!(wrong(&|c| c.ty = array(u(8), 0)).contains("without elements"));
    for size in [0, 7, MAX_RECORD + 1, u32::MAX] {
        let error = Layout::new(&[(Scope::Cpu, size)]).check();
        assert_eq!(error, Err(LayoutError::RecordSize { scope: Scope::Cpu, size }));
    }
    let mut many = good.clone();
    let columns = &mut many.scopes.get_mut(&Scope::Task).unwrap().columns;
    *columns = vec![columns[0].clone(); 4097];
    assert!(matches!(many.check(), Err(LayoutError::TooManyColumns { count: 4097, .. })));
}

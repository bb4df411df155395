//! Planning swaps.

use std::collections::BTreeMap;

use state_migrate::{
    Column, Fate, HEADER, Layout, MAX_STEPS, Plan, PlanError, Queue, QueueOrder, QueueSpan, Repeat, Schema,
    Scope, Step, StructField, Type, apply, check, plan, plan_anew, plan_back, plan_report_anew, queue_rows,
};

use crate::builder::{array, column, s, u};

fn schema(scope: Scope, columns: Vec<Column>) -> Schema {
    Schema { scopes: BTreeMap::from([(scope, columns)]), ..Schema::default() }
}

fn task(columns: Vec<Column>) -> Schema {
    schema(Scope::Task, columns)
}

fn empty() -> Layout {
    Layout::new(&[(Scope::Task, 64), (Scope::Global, 128)])
}

fn fates(plan: &Plan) -> Vec<(&str, Fate)> {
    plan.columns.iter().map(|c| (c.column.as_str(), c.fate.clone())).collect()
}

fn default(name: &str, ty: Type, value: i128) -> Column {
    Column { default: Some(value), ..column(name, ty) }
}

#[test]
fn a_plan_that_carries_nothing_begins_anew_and_can_be_gone_back_over() {
    let old = task(vec![default("vtime", u(64), 7), column("level", u(32)), column("gone", u(32))]);
    let first = plan(&empty(), None, &old, 0).unwrap();
    // One of the same name and type, one of a type that cannot be carried, one that is new.
    let new =
        task(vec![default("vtime", u(64), 9), column("level", array(u(8), 4)), default("extra", u(16), 3)]);
    assert!(plan(&first.layout, Some(0), &new, 1).is_err());
    let anew = plan_anew(&first.layout, Some(0), &new, 1).unwrap();
    let fates: Vec<_> = fates(&anew);
    assert!(fates[..3].iter().all(|(_, fate)| *fate == Fate::Defaulted), "{fates:?}");
    assert_eq!(fates[3..], [("level", Fate::Dropped), ("gone", Fate::Dropped)]);
    assert!(plan_report_anew(&first.layout, Some(0), &new, 1).refused.is_empty());

    let mut record = vec![0xab; 64];
    apply(&anew.steps[&Scope::Task], &mut record).unwrap();
    let at = |name: &str, ty: &Type| anew.layout.offset(Scope::Task, name, ty).unwrap() as usize;
    assert_eq!(record[at("vtime", &u(64))..][..8], 9u64.to_le_bytes());
    assert_eq!(record[at("level", &array(u(8), 4))..][..4], [0; 4]);
    assert_eq!(record[at("extra", &u(16))..][..2], 3u16.to_le_bytes());
    // What only the old one has is as it was, for the way back.
    assert_eq!(record[at("level", &u(32))..][..4], [0xab; 4]);
    assert_eq!(record[at("gone", &u(32))..][..4], [0xab; 4]);
    assert!(plan_back(&anew.layout, 1, 0).is_ok());
}

#[test]
fn carries_defaults_and_drops() {
    let old = task(vec![default("vtime", u(64), 7), column("gone", u(32))]);
    let first = plan(&empty(), None, &old, 0).unwrap();
    assert_eq!(fates(&first), [("vtime", Fate::Defaulted), ("gone", Fate::Defaulted)]);
    assert_eq!(first.layout.offset(Scope::Task, "vtime", &u(64)), Some(HEADER));

    let new = task(vec![default("extra", s(16), -2), default("vtime", u(64), 9)]);
    let second = plan(&first.layout, Some(0), &new, 1).unwrap();
    assert_eq!(
        fates(&second),
        [("extra", Fate::Defaulted), ("vtime", Fate::Carried), ("gone", Fate::Dropped)]
    );
    let at = second.layout.offset(Scope::Task, "extra", &s(16)).unwrap();
    assert_eq!(
        second.steps[&Scope::Task],
        [Step::Store { to: at, size: 2, value: 0xfffe, repeat: Repeat::ONCE }]
    );
    let image = second.layout.image(Scope::Task);
    assert_eq!(image.len(), 64);
    assert_eq!(image[HEADER as usize..][..8], 9u64.to_le_bytes(), "the new default holds from now on");
    assert_eq!(image[at as usize..][..2], (-2i16).to_le_bytes());
    assert_eq!(second.columns[1].to_string(), "carried task.vtime: u64 at 8");

    let mut layout = second.layout;
    layout.evict(0);
    let left: Vec<_> = layout.named_by(Scope::Task, 1).map(|c| c.name.as_str()).collect();
    assert_eq!(left, ["vtime", "extra"], "the first policy goes, what it shared stays");
    assert_eq!(layout.offset(Scope::Task, "gone", &u(32)), None);
}

#[test]
fn a_retained_column_is_carried_though_the_running_policy_lacks_it() {
    let with = task(vec![column("a", u(64))]);
    let without = task(vec![column("b", u(64))]);
    let first = plan(&empty(), None, &with, 0).unwrap();
    let second = plan(&first.layout, Some(0), &without, 1).unwrap();
    let third = plan(&second.layout, Some(1), &with, 2).unwrap();
    assert_eq!(fates(&third), [("a", Fate::Retained), ("b", Fate::Dropped)]);
    assert!(third.steps.is_empty(), "a swap that adds no column needs no sweep");
}

#[test]
fn evicted_bytes_are_free_again() {
    let a = task(vec![column("a", array(u(64), 7))]);
    let mut layout = plan(&empty(), None, &a, 0).unwrap().layout;
    assert_eq!(layout.free_bytes(Scope::Task), 0);
    let b = task(vec![column("b", u(8))]);
    let error = plan(&layout, None, &b, 1).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`b`") && text.contains("1 bytes are missing"), "{text}");
    assert!(text.contains("`a` (56 bytes, slot 0)"), "{text}");
    layout.evict(0);
    assert_eq!(layout.free_bytes(Scope::Task), 56);
    assert!(plan(&layout, None, &b, 1).is_ok());
}

#[test]
fn a_full_record_names_only_columns_that_could_go() {
    let layout = plan(&empty(), None, &task(vec![column("old", array(u(64), 3))]), 0).unwrap().layout;
    let layout = plan(&layout, Some(0), &task(vec![column("run", array(u(64), 3))]), 1).unwrap().layout;
    let new = task(vec![column("x", array(u(64), 2)), column("y", u(64))]);
    let Err(PlanError::Full { missing, retained, unplaced, free, .. }) = plan(&layout, Some(1), &new, 2)
    else {
        panic!("it cannot fit");
    };
    assert_eq!((missing, free, unplaced), (16, 0, vec!["x".to_owned()]));
    assert_eq!(retained.len(), 1);
    assert_eq!(retained[0].column, "old");
}

#[test]
fn a_changed_type_is_an_error_with_both_types() {
    let layout = plan(&empty(), None, &task(vec![column("n", u(32))]), 0).unwrap().layout;
    let new = task(vec![column("n", array(u(32), 2))]);
    let text = plan(&layout, Some(0), &new, 1).unwrap_err().to_string();
    assert!(text.contains("task.n") && text.contains("`u32`") && text.contains("`u32[2]`"), "{text}");
    // The other scope's column of that name is another column.
    assert!(plan(&layout, Some(0), &schema(Scope::Global, vec![column("n", u(8))]), 1).is_ok());
    // Retained for a rollback only: both stand side by side, and it is said why the new one starts afresh.
    let layout = plan(&layout, Some(0), &task(vec![column("m", u(8))]), 1).unwrap().layout;
    let both = plan(&layout, Some(1), &new, 2).unwrap();
    assert_eq!(both.columns[0].fate, Fate::Defaulted);
    assert!(both.columns[0].reason.as_ref().unwrap().contains("`n`: u32, kept in slot 0"));
    let both = both.layout;
    assert_ne!(both.offset(Scope::Task, "n", &u(32)), both.offset(Scope::Task, "n", &array(u(32), 2)));
    // Going on with the old type from there is refused: it would bring back an outdated value unasked.
    let back = plan(&both, Some(2), &task(vec![column("n", u(32))]), 3);
    assert!(matches!(back, Err(PlanError::TypeChanged { .. })));
}

#[test]
fn stores_are_as_large_as_alignment_allows() {
    let fields = vec![
        StructField { name: "a".into(), offset: 0, ty: u(8) },
        StructField { name: "b".into(), offset: 8, ty: u(64) },
    ];
    let columns = vec![
        default("w", u(64), -1i64 as u64 as i128),
        column("st", Type::Struct { size: 16, align: 8, fields }),
        default("arr", array(u(16), 3), 0x1234),
        default("flag", Type::Bool, 1),
    ];
    let made = plan(&empty(), None, &task(columns), 0).unwrap();
    let store = |s: &Step| match s {
        Step::Store { to, size, value, repeat } => (*to, *size, *value, repeat.count),
        _ => panic!("{s}"),
    };
    let stores: Vec<_> = made.steps[&Scope::Task].iter().map(store).collect();
    assert_eq!(
        stores,
        [
            // The struct first: it is the largest of the most aligned.
            (8, 8, 0, 2),
            (24, 8, u64::MAX, 1),
            (32, 4, 0x1234_1234, 1),
            (36, 2, 0x1234, 1),
            (38, 1, 1, 1),
        ]
    );
}

#[test]
fn too_many_steps_are_refused() {
    let layout = Layout::new(&[(Scope::Global, 4096)]);
    let large = schema(Scope::Global, vec![column("hist", array(u(64), 400))]);
    assert_eq!(plan(&layout, None, &large, 0).unwrap().steps[&Scope::Global].len(), 1, "one step, repeated");
    // Defaults that differ, so that no two stores are alike.
    let structs = |n: u32| (0..n).map(|i| default(&format!("c{i}"), array(u(16), 2), i.into())).collect();
    let ok: Vec<Column> = structs(MAX_STEPS as u32);
    assert_eq!(
        plan(&layout, None, &schema(Scope::Global, ok), 0).unwrap().steps[&Scope::Global].len(),
        MAX_STEPS
    );
    let more: Vec<Column> = structs(MAX_STEPS as u32 + 1);
    let error = plan(&layout, None, &schema(Scope::Global, more), 0).unwrap_err();
    assert_eq!(error, PlanError::TooManySteps { scope: Scope::Global, steps: MAX_STEPS + 1 });
}

#[test]
fn refuses_slots_in_use_and_scopes_without_a_record() {
    let a = task(vec![column("a", u(64))]);
    let layout = plan(&empty(), None, &a, 0).unwrap().layout;
    assert_eq!(plan(&layout, Some(1), &a, 0), Err(PlanError::SlotTaken { slot: 0 }));
    assert_eq!(plan(&empty(), Some(1), &a, 1), Err(PlanError::SlotTaken { slot: 1 }));
    let error = plan(&layout, Some(0), &schema(Scope::Cpu, vec![column("a", u(64))]), 1).unwrap_err();
    assert_eq!(error, PlanError::NoRecord { scope: Scope::Cpu });
    assert!(error.to_string().contains("struct policy_cpu"), "{error}");
}

#[test]
fn queues_are_kept_by_name_order_and_span() {
    let queue = |name: &str, order, span| Queue { name: name.into(), order, span };
    let single = queue("q", QueueOrder::Fifo, QueueSpan::One);
    let per_cpu = queue("q", QueueOrder::Fifo, QueueSpan::Cpu);
    let by_vtime = queue("q", QueueOrder::Vtime, QueueSpan::Cpu);
    let other = queue("other", QueueOrder::Fifo, QueueSpan::Llc);
    let rows = |running: &[&Queue], loaded: &[&Queue], new: &[&Queue]| {
        let own = |queues: &[&Queue]| queues.iter().map(|q| (*q).clone()).collect::<Vec<_>>();
        let rows = queue_rows(&own(running), &own(loaded), &own(new));
        rows.into_iter()
            .map(|r| format!("{} {} {} {}", r.fate, r.queue, r.kind, r.reason.unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rows(&[&per_cpu, &other], &[], &[&other, &per_cpu]),
        ["kept other fifo,per-llc ", "kept q fifo,per-cpu "]
    );
    let another = "new q fifo,per-cpu the fifo of this name is another queue";
    assert_eq!(rows(&[&single], &[], &[&per_cpu]), [another, "handed over q fifo "]);
    let another = "new q fifo,per-cpu the vtime,per-cpu of this name is another queue";
    assert_eq!(rows(&[&by_vtime], &[&other], &[&per_cpu]), [another, "handed over q vtime,per-cpu "]);
    assert_eq!(
        rows(&[], &[&other], &[&other]),
        ["kept other fifo,per-llc another policy that is loaded has it"]
    );
    assert_eq!(rows(&[], &[], &[&other]), ["new other fifo,per-llc "]);
}

#[test]
fn a_check_says_what_becomes_of_queues() {
    let with = |span| Schema {
        queues: vec![Queue { name: "q".into(), order: QueueOrder::Fifo, span }],
        ..Schema::default()
    };
    let report = check(&with(QueueSpan::Llc), &with(QueueSpan::Cgroup), &[]);
    let fates: Vec<_> = report.queues.iter().map(|r| (r.kind.as_str(), r.fate.as_str())).collect();
    assert_eq!(fates, [("fifo,per-cgroup", "new"), ("fifo,per-llc", "handed over")]);
}

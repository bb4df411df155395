//! Each kind of change by hand, and the way back.

use std::collections::BTreeMap;

use state_migrate::{
    Column, Conversion, Fate, Layout, Plan, PlanError, Rule, Scale, Schema, Scope, Signature, Step,
    StructField, Type, apply, check, plan, plan_anew, plan_back, plan_report, well_known,
};

use crate::builder::{array, column, s, u, union};

const TASK: Scope = Scope::Task;

fn task(columns: Vec<Column>) -> Schema {
    Schema { scopes: BTreeMap::from([(TASK, columns)]), ..Schema::default() }
}

/// A schema with the conversions of these types, forward and back.
fn with_conversions(columns: Vec<Column>, from: &Type, to: &Type) -> Schema {
    let rules = columns.iter().filter_map(|c| c.rule.convert.clone());
    let both = rules.flat_map(|c| {
        let (from, to) = (from.clone(), to.clone());
        let back = Signature { number: 1, from: to.clone(), to: from.clone() };
        [(c.program, Signature { number: 0, from, to })].into_iter().chain(c.inverse.map(|name| (name, back)))
    });
    Schema { conversions: both.collect(), ..task(columns) }
}

fn from(name: &str, old: &str, ty: Type) -> Column {
    Column { rule: Rule { from: Some(old.into()), ..Rule::default() }, ..column(name, ty) }
}

fn scaled(name: &str, ty: Type, text: &str) -> Column {
    Column { rule: Rule { scale: Scale::parse(text), ..Rule::default() }, ..column(name, ty) }
}

fn unit(unit: &str, column: Column) -> Column {
    Column { unit: Some(unit.into()), ..column }
}

/// Versions in slots 0, 1, and so on, each swapped in after the one before.
fn history(versions: &[Vec<Column>]) -> (Layout, Vec<Plan>) {
    history_of(&versions.iter().cloned().map(task).collect::<Vec<_>>())
}

fn history_of(versions: &[Schema]) -> (Layout, Vec<Plan>) {
    let (mut layout, mut plans) = (Layout::new(&[(TASK, 256)]), Vec::new());
    for (slot, version) in (0u32..).zip(versions) {
        let made = plan(&layout, slot.checked_sub(1), version, slot).unwrap();
        layout = made.layout.clone();
        plans.push(made);
    }
    (layout, plans)
}

fn refused(old: Column, new: Column) -> PlanError {
    let (layout, _) = history(&[vec![old]]);
    plan(&layout, Some(0), &task(vec![new]), 1).unwrap_err()
}

fn row(plan: &Plan, i: usize) -> String {
    let row = &plan.rows()[i];
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    format!("{} {}: {} <- {}; {}", row.fate, row.column, row.ty, or(&row.from), or(&row.reason))
}

fn convert(program: &str, inverse: Option<&str>, column: Column) -> Column {
    let convert = Some(Conversion { program: program.into(), inverse: inverse.map(Into::into) });
    Column { rule: Rule { convert, ..column.rule }, ..column }
}

#[test]
fn rows_say_what_becomes_of_each_column() {
    let old = vec![column("a", u(32)), column("b", u(64)), column("gone", u(8)), column("same", s(8))];
    let new = vec![
        column("same", s(8)),
        column("a", s(64)),
        unit(
            "us",
            Column {
                rule: Rule { from: Some("b".into()), ..scaled("", u(8), "1/1000").rule },
                ..column("c", u(64))
            },
        ),
        Column { default: Some(20), ..column("new", u(16)) },
    ];
    let (layout, plans) = history(&[old, new]);
    let rows: Vec<String> = (0..plans[1].columns.len()).map(|i| row(&plans[1], i)).collect();
    assert_eq!(
        rows,
        [
            "carried same: s8 <- -; -",
            "converted a: s64 <- a: u32; u32 to s64",
            "converted c: u64 <- b: u64; renamed, v / 1000",
            "defaulted new: u16 <- -; starts as 20",
            "dropped b: u64 <- -; its value goes on in `c`: u64",
            "dropped a: u32 <- -; its value goes on in `a`: s64",
            "dropped gone: u8 <- -; -",
        ]
    );
    let back = plan_back(&layout, 1, 0).unwrap();
    let rows: Vec<String> = (0..4).map(|i| row(&back, i)).collect();
    assert_eq!(
        rows,
        [
            "converted b: u64 <- c: u64; brought back, v * 1000",
            "converted a: u32 <- a: s64; brought back, s64 to u32",
            "retained gone: u8 <- -; as it was left: the running policy has nothing that comes of it",
            "carried same: s8 <- -; -",
        ]
    );
    assert_eq!(back.layout, layout);
    assert!(plan_back(&layout, 1, 1).unwrap().steps.is_empty(), "to itself all is carried");
}

#[test]
fn a_rule_is_applied_once_whether_its_tag_stays_or_goes() {
    let old = unit("us", column("slice", u(64)));
    let new = unit("ns", scaled("slice", u(64), "1000"));
    let without = unit("ns", column("slice", u(64)));
    let (layout, plans) = history(&[vec![old], vec![new.clone()], vec![new.clone()], vec![without.clone()]]);
    assert!(matches!(plans[1].columns[0].fate, Fate::Converted(_)));
    assert_eq!((&plans[2].columns[0].fate, &plans[3].columns[0].fate), (&Fate::Carried, &Fate::Carried));
    assert_eq!(layout.scopes[&TASK].columns.len(), 2);
    // A host that has never seen the old one: the unit says that the rule is done.
    let (_, plans) = history(&[vec![without], vec![new]]);
    assert_eq!(plans[1].columns[0].fate, Fate::Carried);
    // The same of a renaming.
    let (_, plans) = history(&[
        vec![column("new", u(8))],
        vec![from("new", "old", u(8))],
        vec![from("new", "old", u(16))],
    ]);
    assert_eq!(plans[1].columns[0].fate, Fate::Carried);
    assert_eq!(plans[2].columns[0].fate, Fate::Converted("u8 to u16".into()));
}

#[test]
fn what_cannot_be_carried_is_refused_with_what_to_do() {
    let text = |old, new| refused(old, new).to_string();
    for (old, new) in [
        (u(64), u(32)),
        (u(64), s(64)),
        (s(32), u(64)),
        (u(8), Type::Bool),
        (array(u(64), 2), array(u(32), 4)),
    ] {
        let error = refused(column("n", old.clone()), column("n", new.clone()));
        assert!(matches!(error, PlanError::Narrower { .. }), "{old} to {new}: {error}");
        assert!(error.to_string().contains("scx:saturate"), "{error}");
        let saturate = Rule { saturate: true, ..Rule::default() };
        let (layout, _) = history(&[vec![column("n", old)]]);
        plan(&layout, Some(0), &task(vec![Column { rule: saturate, ..column("n", new) }]), 1).unwrap();
    }
    let structure = |name: &str, ty: Type| Type::Struct {
        size: 8,
        align: 8,
        fields: vec![StructField { name: name.into(), offset: 0, ty }],
    };
    for (old, new) in [
        (u(64), array(u(64), 1)),
        (structure("a", u(64)), structure("b", u(64))),
        (structure("a", u(64)), u(64)),
        (union(u(64)), u(64)),
        (union(u(64)), union(u(32))),
    ] {
        let error = refused(column("n", old.clone()), column("n", new.clone()));
        assert!(matches!(error, PlanError::TypeChanged { .. }), "{old} to {new}: {error}");
        assert!(error.to_string().contains("scx:convert"), "{error}");
    }
    let inside = text(column("st", structure("a", u(64))), column("st", structure("a", u(32))));
    assert!(inside.starts_with("task.st.a:"), "{inside}");
    // A union is the same, however it is seen.
    let (_, plans) = history(&[vec![column("n", union(u(64)))], vec![column("n", union(s(64)))]]);
    assert_eq!(plans[1].columns[0].fate, Fate::Carried);
    let (_, plans) = history(&[vec![column("n", Type::Bool)], vec![column("n", s(16))]]);
    assert_eq!(plans[1].columns[0].fate, Fate::Converted("bool to s16".into()));
}

#[test]
fn units_are_compared_where_both_have_one() {
    let (ns, us) = (unit("ns", column("n", u(64))), unit("us", column("n", u(64))));
    let error = refused(ns.clone(), us.clone());
    assert!(matches!(error, PlanError::UnitMismatch { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "task.n: its unit is `us`, that of `n` of the predecessor is `ns`; rescale it from there (`scx:scale`), \
         correct the unit, or give the field a new name"
    );
    let wider = refused(unit("ns", column("n", u(32))), us.clone());
    assert!(matches!(wider, PlanError::UnitMismatch { .. }));
    for (old, new) in [(column("n", u(64)), ns.clone()), (ns, column("n", u(64)))] {
        let (layout, plans) = history(&[vec![old], vec![new]]);
        assert_eq!(plans[1].columns[0].fate, Fate::Carried);
        // Once known it stays known.
        assert!(plan(&layout, Some(1), &task(vec![us.clone()]), 2).is_err());
    }
    // A retained column of another unit is not taken up.
    let (_, plans) =
        history(&[vec![us.clone()], vec![column("m", u(8))], vec![unit("ns", column("n", u(64)))]]);
    assert_eq!(plans[2].columns[0].fate, Fate::Defaulted);
}

/// The columns of a policy of that name.
fn of(policy: &str, columns: Vec<Column>) -> Schema {
    Schema { policy: policy.into(), ..task(columns) }
}

fn stamp(column: Column) -> Column {
    unit("ns@scx_bpf_now", column)
}

/// Another policy may have used another clock, or counted in another size.
#[test]
fn an_unknown_unit_of_another_policy_is_not_taken() {
    let from_unknown = from("began_at", "last_run_at", u(64));
    let pairs = [
        // Renamed, with the unit of a clock; of a well-known name, which has one whether it says so or not.
        (column("last_run_at", u(64)), stamp(from_unknown.clone())),
        (column("last_run_at", u(64)), from("last_run_at_ns", "last_run_at", u(64))),
        // By identity, widened, and the other way round: what this one writes there the other would take for its own.
        (column("n", u(64)), unit("us", column("n", u(64)))),
        (column("n", u(32)), unit("us", column("n", u(64)))),
        (unit("us", column("n", u(64))), column("n", u(64))),
        (unit("us", column("last_run_at", u(64))), from_unknown.clone()),
        // The renaming was done before, which says nothing about the unit.
        (column("began_at", u(64)), stamp(from_unknown.clone())),
        // The same rule, applied by another policy to a column that nobody knows.
        (scaled("n", u(64), "1000"), unit("us", scaled("n", u(64), "1000"))),
    ];
    for (old, new) in pairs {
        let (layout, _) = history_of(&[of("ours", vec![old.clone()])]);
        let refused = plan(&layout, Some(0), &of("theirs", vec![new.clone()]), 1).unwrap_err();
        assert!(matches!(refused, PlanError::UnitUnknown { .. }), "{old:?} to {new:?}: {refused}");
        let report = check(&of("ours", vec![old.clone()]), &of("theirs", vec![new.clone()]), &[(TASK, 256)]);
        assert_eq!(report.refused[0].columns, std::slice::from_ref(&new.name));
        // Nothing of it where nothing is to be carried.
        let fresh = plan_anew(&layout, Some(0), &of("theirs", vec![new.clone()]), 1).unwrap();
        assert_eq!(fresh.columns[0].fate, Fate::Defaulted);
        // Versions of one policy know what they count, whether they say so or not.
        let own = plan(&layout, Some(0), &of("ours", vec![new]), 1).unwrap();
        assert!(matches!(own.columns[0].fate, Fate::Carried | Fate::Converted(_)), "{:?}", own.columns[0]);
    }
}

#[test]
fn an_unknown_unit_is_refused_with_what_to_do() {
    let refusal = |old: Column, new: Column| {
        let (layout, _) = history_of(&[of("ours", vec![old])]);
        plan(&layout, Some(0), &of("theirs", vec![new]), 1).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(column("last_run_at", u(64)), stamp(from("began_at", "last_run_at", u(64)))),
        "task.began_at: its unit is `ns@scx_bpf_now`, that of `last_run_at` of ours, another policy, is not declared, so \
         the value may be of another clock or size; declare the unit in both (`scx:unit`), say how to get there \
         (`scx:scale`, by 1 if the values are the same), or give the field a new name"
    );
    let text = refusal(unit("us", column("n", u(64))), column("n", u(64)));
    assert!(
        text.starts_with("task.n: its unit is not declared, that of `n` of ours, another policy, is `us`,")
    );
}

#[test]
fn what_is_known_of_another_policy_is_taken() {
    let (us, plain) = (unit("us", column("n", u(64))), column("n", u(64)));
    let by_scale = |text: &str| unit("us", scaled("n", u(64), text));
    let taken = |old: Column, new: Column| {
        let (_, plans) = history_of(&[of("ours", vec![old]), of("theirs", vec![new])]);
        row(&plans[1], 0)
    };
    assert_eq!(taken(us.clone(), us.clone()), "carried n: u64 <- -; -");
    // Nobody declares anything, as most columns do.
    assert_eq!(taken(plain.clone(), plain.clone()), "carried n: u64 <- -; -");
    assert_eq!(taken(plain.clone(), by_scale("1000")), "converted n: u64 <- n: u64; v * 1000");
    assert!(taken(plain.clone(), by_scale("1")).starts_with("converted n: u64 <- n: u64;"));
    let lag = || column("vtime_lag_ns", s(64));
    assert_eq!(taken(lag(), unit("ns*100/weight", lag())), "carried vtime_lag_ns: s64 <- -; -");
    // A conversion of the author's own says what it takes.
    let own = with_conversions(vec![convert("stamped", None, us)], &u(32), &u(64));
    let old = of("ours", vec![column("n", u(32))]);
    let (_, plans) = history_of(&[old, Schema { policy: "theirs".into(), ..own }]);
    assert!(row(&plans[1], 0).starts_with("converted n: u64 <- n: u32; u32 to u64, by `stamped`"));
}

#[test]
fn a_retained_column_of_an_unknown_unit_is_left_to_its_policy() {
    let (plain, us) = (column("n", u(64)), unit("us", column("n", u(64))));
    let between = of("between", vec![column("m", u(8))]);
    let versions = |third: &str| {
        let third = of(third, vec![us.clone()]);
        row(&history_of(&[of("ours", vec![plain.clone()]), between.clone(), third]).1[2], 0)
    };
    assert!(versions("ours").starts_with("retained n"), "{}", versions("ours"));
    assert_eq!(versions("theirs"), "defaulted n: u64 <- -; `n`: u64, kept in slot 0, cannot become it");
    // Two policies without units share it, and then one of them declares it: what the other wrote is not known.
    let shared = [of("ours", vec![plain.clone()]), of("theirs", vec![plain.clone()]), between.clone()];
    let (layout, _) = history_of(&shared);
    let third = plan(&layout, Some(2), &of("ours", vec![us.clone()]), 3).unwrap();
    assert_eq!(third.columns[0].fate, Fate::Defaulted);
    // A policy that is gone is no other any more.
    let mut alone = layout;
    alone.evict(1);
    let third = plan(&alone, Some(2), &of("ours", vec![us]), 1).unwrap();
    assert_eq!(third.columns[0].fate, Fate::Retained);
}

#[test]
fn well_known_names_have_their_unit_and_sign() {
    assert!(well_known::COLUMNS.windows(2).all(|w| w[0].name < w[1].name), "the search needs the order");
    for known in well_known::COLUMNS {
        assert!(known.unit.len() <= state_migrate::schema::MAX_UNIT && !known.meaning.is_empty());
        assert_eq!(well_known::find(known.name), Some(known));
    }
    let lag = || column("vtime_lag_ns", s(64));
    assert_eq!(lag().unit(), Some("ns*100/weight"));
    let (layout, _) = history(&[vec![lag()], vec![unit("ns*100/weight", lag())]]);
    assert_eq!(layout.scopes[&TASK].columns.len(), 1);
    let empty = Layout::new(&[(TASK, 256)]);
    let first = |c: Column| plan(&empty, None, &task(vec![c]), 0).unwrap_err();
    assert!(matches!(first(unit("us", lag())), PlanError::UnitMismatch { .. }));
    assert!(matches!(first(column("vtime_lag_ns", u(64))), PlanError::WellKnownType { .. }));
    let error = first(column("last_cpu", array(s(32), 2))).to_string();
    assert!(error.contains("`s32`") && error.contains("another name"), "{error}");
}

#[test]
fn conversions_by_the_author_are_calls() {
    let old = column("hist", array(u(32), 4));
    let new = convert("fold", Some("unfold"), column("hist", u(64)));
    let new = with_conversions(vec![new], &old.ty.clone(), &u(64));
    let (mut layout, plans) = history_of(&[task(vec![old]), new.clone(), new]);
    assert_eq!(
        plans[1].columns[0].fate,
        Fate::Converted("u32[4] to u64, by `fold`, and back by `unfold`".into())
    );
    assert_eq!((plans[1].caller(), plans[2].caller()), (Some(1), None));
    assert!(plans[2].steps.is_empty());
    let calls = |plan: &Plan| -> Vec<(String, u32, u32, u32)> {
        let call = |s: &Step| match s {
            Step::Call(c) => Some((c.program.clone(), c.slot, c.from_size, c.to_size)),
            _ => None,
        };
        plan.steps[&TASK].iter().filter_map(call).collect()
    };
    assert!(
        matches!(plans[1].steps[&TASK].as_slice(), [Step::Store { .. }, Step::Call(_)]),
        "the default first"
    );
    assert_eq!(calls(&plans[1]), [("fold".into(), 1, 16, 8)]);
    assert_eq!(calls(&plan_back(&layout, 2, 0).unwrap()), [("unfold".into(), 2, 8, 16)]);
    assert_eq!(calls(&plan_back(&layout, 0, 1).unwrap()), [("fold".into(), 1, 16, 8)]);
    layout.evict(1);
    assert_eq!(calls(&plan_back(&layout, 0, 2).unwrap()), [("fold".into(), 2, 16, 8)]);
    // Without an inverse the old value is as it was left.
    let alone = vec![convert("f", None, column("h", union(u(64))))];
    let alone = with_conversions(alone, &u(8), &union(u(64)));
    let (layout, plans) = history_of(&[task(vec![column("h", u(8))]), alone]);
    assert!(row(&plans[1], 0).contains("with no way back"));
    assert!(row(&plan_back(&layout, 1, 0).unwrap(), 0).contains("the conversion `f` has no inverse"));
}

#[test]
fn a_conversion_takes_what_there_is() {
    let old = column("hist", array(u(32), 4));
    let new = || vec![convert("fold", None, column("hist", u(64)))];
    let (layout, _) = history(&[vec![old.clone()]]);
    let error = plan(&layout, Some(0), &task(new()), 1).unwrap_err().to_string();
    assert!(error.starts_with("task.hist: its conversion `fold` takes nothing"), "{error}");
    let other = with_conversions(new(), &array(u(32), 5), &u(64));
    let error = plan(&layout, Some(0), &other, 1).unwrap_err().to_string();
    assert!(error.contains("takes `u32[5]`") && error.contains("is `u32[4]`"), "{error}");
    let report = plan_report(&layout, Some(0), &other, 1);
    assert_eq!((report.rows[0].fate.as_str(), report.refused[0].columns[0].as_str()), ("refused", "hist"));
    // A column that is retained only is no reason to refuse.
    let (layout, _) = history(&[vec![old], vec![column("else", u(8))]]);
    let plan = plan(&layout, Some(1), &other, 2).unwrap();
    assert!(row(&plan, 0).starts_with("defaulted hist"), "{}", row(&plan, 0));
}

#[test]
fn a_plan_calls_one_policy() {
    // The first conversion stays with slot 1, which slot 2 carries on without the tag; the second is slot 2's own.
    let (wide, narrow) = (array(u(32), 4), u(64));
    let pair = |a, b| vec![a, b];
    let old = task(pair(column("a", wide.clone()), column("b", wide.clone())));
    let first = pair(convert("fold", Some("unfold"), column("a", narrow.clone())), column("b", wide.clone()));
    let second =
        pair(column("a", narrow.clone()), convert("fold", Some("unfold"), column("b", narrow.clone())));
    let versions = [old, with_conversions(first, &wide, &narrow), with_conversions(second, &wide, &narrow)];
    let (layout, _) = history_of(&versions);
    let back = plan_back(&layout, 2, 0).unwrap();
    assert_eq!(back.caller(), Some(2));
    assert!(row(&back, 0).starts_with("retained a") && row(&back, 0).contains("only slot 1 has `unfold`"));
    assert!(row(&back, 1).starts_with("converted b") && row(&back, 1).contains("by `unfold`"));
    // Each call counts for four of the steps that a plan can have.
    assert_eq!(back.steps[&TASK].iter().map(Step::entries).collect::<Vec<_>>(), [4]);
}

#[test]
fn the_way_back_over_generations() {
    let versions = [
        vec![unit("s", column("t", u(32)))],
        vec![unit("ms", scaled("t", u(32), "1000"))],
        vec![unit("us", scaled("t", u(64), "1000+5"))],
    ];
    let (mut layout, _) = history(&versions);
    let back = plan_back(&layout, 2, 0).unwrap();
    assert_eq!(
        row(&back, 0),
        "converted t: u32 <- t: u64; brought back, u64 to u32, (v -5) / 1000000; over 2 derivations"
    );
    let mut record = vec![0; 256];
    let at = |slot| layout.column(TASK, slot, "t").unwrap().offset as usize;
    record[at(2)..at(2) + 8].copy_from_slice(&7_000_005u64.to_le_bytes());
    apply(&back.steps[&TASK], &mut record).unwrap();
    assert_eq!(record[at(0)..at(0) + 4], 7u32.to_le_bytes());
    layout.evict(1);
    let lost = row(&plan_back(&layout, 2, 0).unwrap(), 0);
    assert!(lost.starts_with("retained t: u32") && lost.contains("is gone with its policy"), "{lost}");
    // Rules that do not go into one step.
    let (layout, _) = history(&[
        vec![column("t", u(64))],
        vec![scaled("t", u(64), "7/3+1")],
        vec![scaled("t", u(64), "5/11+1")],
    ]);
    assert!(row(&plan_back(&layout, 2, 0).unwrap(), 0).contains("no single step"));
}

#[test]
fn a_copy_goes_its_own_way() {
    let (layout, plans) = history(&[
        vec![column("avg", u(64))],
        vec![column("avg", u(64)), from("peak", "avg", u(64))],
        vec![from("peak", "avg", u(64))],
    ]);
    assert_eq!(row(&plans[1], 1), "converted peak: u64 <- avg: u64; renamed");
    assert!(row(&plan_back(&layout, 2, 0).unwrap(), 0).contains("`peak` is a copy that went its own way"));
    assert!(
        row(&plan_back(&layout, 0, 1).unwrap(), 1)
            .starts_with("converted peak: u64 <- avg: u64; derived again")
    );
}

#[test]
fn a_retained_column_is_a_source_where_the_running_policy_has_none() {
    let (_, plans) = history(&[
        vec![column("n", u(32))],
        vec![column("m", u(8))],
        vec![column("n", u(64)), from("o", "n", u(32))],
    ]);
    assert_eq!(
        row(&plans[2], 0),
        "converted n: u64 <- n: u32; u32 to u64; the running policy has none; `n` was kept in slot 0, as it was left there"
    );
    assert!(row(&plans[2], 1).starts_with("converted o: u32 <- n: u32; renamed"));
}

#[test]
fn a_report_has_all_that_stands_against_it() {
    let old = task(vec![column("n", u(64)), column("m", u(64)), column("ok", u(8))]);
    let new = task(vec![
        column("n", u(32)),
        column("m", array(u(8), 2)),
        column("ok", u(8)),
        column("big", array(u(64), 9)),
    ]);
    let report = check(&old, &new, &[(TASK, 64)]);
    assert!(report.plan.is_none());
    let about: Vec<_> = report.refused.iter().map(|r| r.columns.join(",")).collect();
    assert_eq!(about, ["n", "m", "big"]);
    let fates: Vec<_> =
        report.rows.iter().filter(|r| r.fate == "refused").map(|r| r.column.as_str()).collect();
    assert_eq!(fates, ["n", "m", "big"]);
    let capacity = report.capacity[0];
    assert_eq!((capacity.record_size, capacity.used, capacity.free, capacity.needed), (64, 25, 39, 72));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<state_migrate::PlanReport>(&json).unwrap(), report);
    let first = plan(&Layout::new(&[(TASK, 64)]), None, &old, 0).unwrap().layout;
    let error = plan(&first, Some(0), &new, 1).unwrap_err();
    assert!(matches!(&error, PlanError::Several(all) if all.len() == 3));
    assert_eq!(error.to_string().lines().count(), 3);
    let bad = check(&task(vec![column("vtime_lag_ns", u(8))]), &new, &[(TASK, 64)]);
    assert_eq!(bad.refused.len(), 1);
    let good = plan_report(&first, Some(0), &old, 1);
    assert_eq!(good.plan.unwrap(), plan(&first, Some(0), &old, 1).unwrap());
}

#[test]
fn damaged_layouts_are_refused() {
    let (layout, _) = history(&[vec![column("n", u(32)), column("a", array(u(16), 2))]]);
    let damage = |change: fn(&mut state_migrate::ScopeLayout)| {
        let mut layout = layout.clone();
        change(layout.scopes.get_mut(&TASK).unwrap());
        let error = plan(&layout, Some(0), &task(vec![column("n", u(64))]), 1).unwrap_err();
        assert!(matches!(error, PlanError::Layout(_)), "{error}");
        assert_eq!(plan_back(&layout, 0, 1), Err(error));
    };
    damage(|s| s.record_size = u32::MAX);
    damage(|s| s.columns[0].offset = u32::MAX - 3);
    damage(|s| s.columns[0].offset = 9);
    damage(|s| s.columns[1].offset = s.columns[0].offset);
    damage(|s| s.columns[0].ty = array(u(64), 1 << 30));
    damage(|s| s.columns[0].ty = Type::Int { size: 3, signed: true });
    damage(|s| s.columns[0].id = s.columns[1].id);
    damage(|s| s.columns[0].slots.clear());
}

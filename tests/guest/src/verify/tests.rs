use super::rules::Rule;
use super::*;
use state_migrate::{ScopeLayout, Type};

const EPOCH: u32 = 2;

fn column(name: &str, offset: u32, default: Option<i128>, slots: &[u32]) -> Placed {
    let ty = Type::Int { size: 8, signed: false };
    Placed {
        id: u64::from(offset),
        name: name.to_owned(),
        ty,
        default,
        unit: None,
        rule: state_migrate::Rule::default(),
        offset,
        slots: slots.iter().copied().collect(),
        source: None,
    }
}

/// `shared` is of both versions, `old` of the first and `new` of the second.
fn layout() -> Layout {
    let columns = vec![
        column("shared", 8, None, &[0, 1]),
        column("old", 16, None, &[0]),
        column("new", 24, Some(7), &[1]),
    ];
    Layout {
        scopes: [(Scope::Task, ScopeLayout { record_size: 264, columns, next_id: 264 })].into(),
        policies: Default::default(),
    }
}

fn rules() -> Rules {
    Rules::none().with("shared", Rule::NeverBack).with("new", Rule::ByTurns)
}

fn expect() -> Expect {
    Expect::of_swap(&layout(), 0, 1, EPOCH, rules())
}

fn task(pid: u32, switches: u64, values: [u64; 3]) -> Entry {
    let layout = layout();
    let columns = &layout.scopes[&Scope::Task].columns;
    let entry = Entry::sleeping(pid, switches, EPOCH);
    columns.iter().zip(values).fold(entry, |entry, (column, value)| entry.put(column, &value.to_le_bytes()))
}

fn snapshot(entries: &[Entry]) -> Snapshot {
    Snapshot { entries: entries.to_vec(), from_ns: 0, to_ns: 0 }
}

fn compare(before: &[Entry], after: &[Entry]) -> Verification {
    verify(&snapshot(before), &snapshot(after), &expect())
}

#[test]
fn the_swap_carries_what_either_names_and_defaults_the_rest() {
    let names = |columns: &[Placed]| columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expect().carried), ["shared", "old"]);
    assert_eq!(names(&expect().defaulted), ["new"]);
    let back = Expect::of_rollback(&layout(), 1, 0, EPOCH, rules());
    assert_eq!(names(&back.carried), ["shared", "new", "old"]);
    assert!(back.defaulted.is_empty());
}

#[test]
fn a_task_that_slept_keeps_every_byte() {
    let before = [task(1, 5, [10, 20, 0])];
    let good = compare(&before, &[task(1, 5, [10, 20, 7])]);
    assert_eq!((good.live, good.idle, good.verified, good.carried), (1, 1, 1, 1));
    for (bad, column) in [([11, 20, 7], "shared"), ([10, 21, 7], "old"), ([10, 20, 8], "new")] {
        let outcome = compare(&before, &[task(1, 5, bad)]);
        assert_eq!((outcome.live, outcome.verified), (1, 0));
        assert!(outcome.failures[0].contains(column), "{:?}", outcome.failures);
    }
}

#[test]
fn a_task_that_ran_keeps_the_rules() {
    let before = [task(1, 5, [10, 20, 0])];
    // Two switches: four turns at most.
    let good = compare(&before, &[task(1, 7, [11, 999, 11])]);
    assert_eq!((good.ran, good.verified), (1, 1));
    assert_eq!(compare(&before, &[task(1, 7, [9, 20, 7])]).verified, 0);
    assert_eq!(compare(&before, &[task(1, 7, [10, 20, 12])]).verified, 0);
    // On the CPU in the later snapshot, not switched away from yet.
    let on_cpu = task(1, 5, [12, 20, 7]).made(false, true, true);
    assert_eq!(compare(&before, &[on_cpu]).ran, 1);
}

#[test]
fn a_turn_may_end_without_a_switch_once_a_slice() {
    let mut expect = expect();
    expect.rules.slice_ns = 1_000;
    let before = snapshot(&[task(1, 5, [1, 1, 0])]);
    let mut ran = task(1, 6, [1, 1, 7 + 6]);
    ran.ran_ns = 3_000;
    assert_eq!(verify(&before, &snapshot(&[ran]), &expect).verified, 1);
    ran.ran_ns = 2_999;
    assert_eq!(verify(&before, &snapshot(&[ran]), &expect).verified, 0);
}

#[test]
fn births_and_deaths_are_told_apart() {
    let before = [task(1, 5, [1, 1, 0]), task(2, 5, [1, 1, 0]), task(3, 5, [1, 1, 0])];
    let after = [
        task(1, 5, [1, 1, 7]),
        task(2, 5, [1, 1, 7]).made(true, true, false),
        // The PID of the third, in another task.
        task(4, 0, [0, 0, 7]),
    ];
    let outcome = compare(&before, &after);
    assert_eq!((outcome.live, outcome.idle, outcome.born, outcome.gone), (2, 1, 1, 2));
    assert_eq!((outcome.verified, outcome.carried), (2, 1));
}

#[test]
fn a_record_that_is_missing_or_old_is_a_failure() {
    let before = [task(1, 5, [1, 1, 0])];
    let missing = compare(&before, &[task(1, 5, [1, 1, 7]).made(false, false, false)]);
    assert!(missing.failures[0].contains("no record"), "{:?}", missing.failures);
    let mut old = task(1, 5, [1, 1, 7]);
    old.stamp = EPOCH - 1;
    assert!(compare(&before, &[old]).failures[0].contains("epoch 1"));
}

#[test]
fn only_the_first_failures_are_told() {
    let before: Vec<_> = (1..=50).map(|pid| task(pid, 5, [1, 1, 0])).collect();
    let after: Vec<_> = (1..=50).map(|pid| task(pid, 5, [2, 1, 7])).collect();
    let outcome = compare(&before, &after);
    assert_eq!((outcome.live, outcome.verified, outcome.failures.len()), (50, 0, TOLD));
    assert!(outcome.failures[0].contains("pid 1 ()"));
    assert!(outcome.failures[0].contains("before 1, after 2"));
}

//! Random histories of a host: versions evolve, are swapped in, rolled back and evicted, and write their state. What
//! each record must hold is computed by a model that knows what was meant, not how it is planned.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use state_migrate::{
    Column, Fate, Layout, Plan, PlanError, Scale, Schema, Scope, Step, Type, apply, plan, plan_back,
};

use crate::evolve::{Meant, Rng, evolve};
use crate::model::{Value, chain, convert, forward, initial, inverse, range, read, write};
use crate::properties::check_layout;

const SLOTS: u32 = 4;
const RECORDS: usize = 2;

/// The rules on a way, each as declared or turned round.
type Rules = Vec<(Scale, bool)>;

/// A column as the model knows it.
struct Known {
    column: Column,
    /// Of which column it was made, how, and whether that one went on beside it.
    made: Option<(usize, Option<Scale>, bool)>,
    slots: BTreeSet<u32>,
    place: u32,
    values: Vec<Value>,
}

struct Host {
    rng: Rng,
    layout: Layout,
    running: Option<u32>,
    versions: BTreeMap<u32, Vec<(usize, Column)>>,
    known: BTreeMap<usize, Known>,
    next: usize,
    records: Vec<Vec<u8>>,
}

impl Host {
    fn new(seed: u64, size: u32) -> Host {
        Host {
            rng: Rng::new(seed),
            layout: Layout::new(&[(Scope::Task, size)]),
            running: None,
            versions: BTreeMap::new(),
            known: BTreeMap::new(),
            next: 0,
            records: vec![vec![0; size as usize]; RECORDS],
        }
    }

    fn evict(&mut self, slot: u32) {
        self.layout.evict(slot);
        self.versions.remove(&slot);
        self.known.retain(|_, k| {
            k.slots.remove(&slot);
            !k.slots.is_empty()
        });
    }

    fn swap(&mut self) {
        let slot = self.rng.below(SLOTS.into()) as u32;
        if self.running == Some(slot) {
            return;
        }
        self.evict(slot);
        let before = self.running.map(|r| self.versions[&r].clone()).unwrap_or_default();
        let meant = evolve(&mut self.rng, &before);
        let columns: Vec<Column> = meant.iter().map(|m| m.0.clone()).collect();
        let schema = Schema { scopes: BTreeMap::from([(Scope::Task, columns)]), ..Schema::default() };
        let made = match plan(&self.layout, self.running, &schema, slot) {
            Ok(made) => made,
            Err(PlanError::Full { .. } | PlanError::TooManySteps { .. }) => return,
            Err(error) => panic!("{error}\nbefore: {before:#?}\nmeant: {meant:#?}"),
        };
        check_layout(&made.layout);
        if self.rng.chance(5) {
            let json = serde_json::to_string(&made).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), made);
        }
        if self.rng.chance(10) {
            return; // not committed: nothing was touched
        }
        let old: Vec<Vec<u8>> = self.records.clone();
        self.apply(&made);
        self.layout = made.layout;
        let mut version = Vec::new();
        let ids: Vec<usize> = meant.iter().map(|(column, meant)| self.meant(column, meant, slot)).collect();
        for ((column, meant), id) in meant.into_iter().zip(ids) {
            if let (Meant::Made(source, _), Some(known)) = (&meant, self.known.get(&id)) {
                let forked = self.known[source].slots.contains(&slot);
                let made = known.made.map(|m| (m.0, m.1, forked));
                self.known.get_mut(&id).unwrap().made = made;
            }
            version.push((id, column));
        }
        self.versions.insert(slot, version);
        self.running = Some(slot);
        self.check_rest(&old, &made.steps.get(&Scope::Task).cloned().unwrap_or_default());
        if self.rng.chance(20) {
            // A task is born.
            self.records[1] = self.layout.image(Scope::Task);
            for k in self.known.values_mut() {
                k.values[1] = initial(&k.column.ty, k.column.default);
            }
        }
        self.check();
    }

    /// Enters what a column is meant to be; its id.
    fn meant(&mut self, column: &Column, meant: &Meant, slot: u32) -> usize {
        let placed = self.layout.column(Scope::Task, slot, &column.name).unwrap();
        if let Meant::Same(id) = meant {
            let known = self.known.get_mut(id).unwrap();
            assert_eq!(placed.offset, known.place, "{} did not keep its place", column.name);
            known.slots.insert(slot);
            known.column.default = column.default;
            return *id;
        }
        let first = initial(&column.ty, column.default);
        let values = match meant {
            Meant::Made(source, scale) => {
                let source = &self.known[source];
                let number = |n| vec![scale.as_ref().map_or(n, |s| forward(n, s))];
                let make = |v: &Value| convert((&source.column.ty, v), (&column.ty, &first), &first, &number);
                source.values.iter().map(make).collect()
            }
            _ => vec![first; RECORDS],
        };
        let made = if let Meant::Made(id, scale) = meant { Some((*id, *scale, false)) } else { None };
        let (slots, place) = (BTreeSet::from([slot]), placed.offset);
        self.known.insert(self.next, Known { column: column.clone(), made, slots, place, values });
        self.next += 1;
        self.next - 1
    }

    fn back(&mut self) {
        let Some(running) = self.running else { return };
        let target = self.rng.below(SLOTS.into()) as u32;
        if target == running || !self.versions.contains_key(&target) {
            return;
        }
        let made = match plan_back(&self.layout, running, target) {
            Ok(made) => made,
            Err(PlanError::TooManySteps { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(made.layout, self.layout);
        let old = self.records.clone();
        self.apply(&made);
        self.running = Some(target);
        self.check_rest(&old, &made.steps.get(&Scope::Task).cloned().unwrap_or_default());
        for (id, column) in self.versions[&target].clone() {
            if self.known[&id].slots.contains(&running) {
                continue;
            }
            let row =
                made.columns.iter().find(|r| r.column == column.name && r.fate != Fate::Dropped).unwrap();
            let Some((from, links, rules)) = self.way(running, id) else {
                assert_eq!(row.fate, Fate::Retained, "{}: {:?}", row, row.reason);
                continue;
            };
            let reason = row.reason.as_deref().unwrap_or_default();
            if row.fate == Fate::Retained {
                if reason.contains("any more") {
                    // Each version kept a part of the version before, and the last one has no part of the first.
                    let from = &self.known[&from].column.ty;
                    assert!(links > 1 && !alike(from, &column.ty), "{row}: {reason}");
                    continue;
                }
                // Of several ways that do not do, the reason is that of the nearest.
                let known = ["single step", "its own way"].iter().any(|r| reason.contains(r));
                assert!(rules.len() > 1 && known, "{row}: {reason}");
                continue;
            }
            let number = |n| match rules.as_slice() {
                [] => Some(vec![n]),
                [(rule, true)] => Some(vec![inverse(n, rule)]),
                [(rule, false)] => Some(vec![forward(n, rule)]),
                more => chain(n, more),
            };
            for i in 0..RECORDS {
                let place = self.known[&id].place as usize;
                let actual = read(&column.ty, &self.records[i][place..]);
                let number = |n| number(n).unwrap_or_else(|| (0..0).collect());
                let (from, own) = (&self.known[&from], &self.known[&id]);
                let exact =
                    rules.len() < 2 || numbers(&from.values[i]).iter().all(|n| !number(*n).is_empty());
                let value = if exact {
                    let old = (&from.column.ty, &from.values[i]);
                    convert(old, (&column.ty, &own.values[i]), &actual, &number)
                } else {
                    actual
                };
                self.known.get_mut(&id).unwrap().values[i] = value;
            }
        }
        self.check();
    }

    /// The column of the running version that is the nearest relative of `target`, the number of derivations between the
    /// two, and the rules on the way.
    fn way(&self, running: u32, target: usize) -> Option<(usize, usize, Rules)> {
        let line = |id: usize| {
            let mut line = vec![id];
            while let Some((source, _, _)) = self.known[&line[line.len() - 1]].made {
                if !self.known.contains_key(&source) {
                    break;
                }
                line.push(source);
            }
            line
        };
        let forth = line(target);
        let mut best: Option<((usize, usize), usize, Rules)> = None;
        for (&id, _) in self.known.iter().filter(|(_, k)| k.slots.contains(&running)) {
            let back = line(id);
            let Some((up, down)) = back
                .iter()
                .enumerate()
                .find_map(|(up, id)| forth.iter().position(|f| f == id).map(|down| (up, down)))
            else {
                continue;
            };
            if back[..up].iter().any(|id| self.known[id].made.unwrap().2) {
                continue;
            }
            let rule = |id: &usize, back| self.known[id].made.unwrap().1.map(|scale| (scale, back));
            let mut rules: Rules = back[..up].iter().filter_map(|id| rule(id, true)).collect();
            rules.extend(forth[..down].iter().rev().filter_map(|id| rule(id, false)));
            if best.as_ref().is_none_or(|b| (down, up) < b.0) {
                best = Some(((down, up), id, rules));
            }
        }
        best.map(|((down, up), id, rules)| (id, down + up, rules))
    }

    /// The running version at work.
    fn work(&mut self) {
        let Some(running) = self.running else { return };
        for (id, column) in self.versions[&running].clone() {
            for i in 0..RECORDS {
                if self.rng.chance(50) {
                    continue;
                }
                let known = self.known.get_mut(&id).unwrap();
                let mut value = known.values[i].clone();
                scribble(&mut self.rng, &column.ty, &mut value);
                write(&column.ty, &value, &mut self.records[i][known.place as usize..]);
                known.values[i] = value;
            }
        }
    }

    fn apply(&mut self, plan: &Plan) {
        let Some(steps) = plan.steps.get(&Scope::Task) else { return };
        let size = self.records[0].len();
        let (mut read, mut written) = (vec![false; size], vec![false; size]);
        for step in steps {
            for range in step.reads() {
                read[range.start as usize..range.end as usize].fill(true);
            }
            for range in step.writes() {
                for byte in &mut written[range.start as usize..range.end as usize] {
                    assert!(!*byte, "{step} writes a byte again");
                    *byte = true;
                }
            }
        }
        assert!(!read.iter().zip(&written).any(|(r, w)| *r && *w), "a step reads what another wrote");
        for record in &mut self.records {
            apply(steps, record).unwrap();
        }
    }

    /// Only the steps' bytes changed.
    fn check_rest(&self, old: &[Vec<u8>], steps: &[Step]) {
        for (old, new) in old.iter().zip(&self.records) {
            let mut old = old.clone();
            for range in steps.iter().flat_map(Step::writes) {
                let range = range.start as usize..range.end as usize;
                old[range.clone()].copy_from_slice(&new[range]);
            }
            assert_eq!(&old, new, "a byte changed that no step writes");
        }
    }

    /// Every column that a slot names stands where it stood, and holds what the model says.
    fn check(&self) {
        for (slot, version) in &self.versions {
            for (id, column) in version {
                let known = &self.known[id];
                let placed = self.layout.column(Scope::Task, *slot, &column.name).unwrap();
                assert_eq!((placed.offset, &placed.ty), (known.place, &column.ty), "{}", column.name);
                for (record, value) in self.records.iter().zip(&known.values) {
                    let actual = read(&column.ty, &record[known.place as usize..]);
                    assert_eq!(&actual, value, "{}: {} in slot {slot}", column.name, column.ty);
                }
            }
        }
        assert_eq!(self.layout.scopes[&Scope::Task].columns.len(), self.known.len());
    }
}

/// Whether a value of one type says something about a value of the other: the fields of the same name of two structs
/// must, and there must be one.
fn alike(from: &Type, to: &Type) -> bool {
    match (from, to) {
        _ if from == to => true,
        (Type::Array { elem: from, .. }, Type::Array { elem: to, .. }) => alike(from, to),
        (Type::Struct { fields: from, .. }, Type::Struct { fields: to, .. }) => {
            let source = |name: &str| from.iter().find(|f| f.name == name);
            let common: Vec<_> = to.iter().filter_map(|to| Some((source(&to.name)?, to))).collect();
            !common.is_empty() && common.iter().all(|(from, to)| alike(&from.ty, &to.ty))
        }
        _ => range(from).is_some() && range(to).is_some(),
    }
}

fn numbers(value: &Value) -> Vec<i128> {
    match value {
        Value::Number(n) => vec![*n],
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        Value::Struct(values) => values.values().flat_map(numbers).collect(),
        Value::Bytes(_) => Vec::new(),
    }
}

fn scribble(rng: &mut Rng, ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Array { elem, .. }, Value::Array(values)) => {
            values.iter_mut().for_each(|v| scribble(rng, elem, v));
        }
        (Type::Struct { fields, .. }, Value::Struct(values)) => {
            fields.iter().for_each(|f| scribble(rng, &f.ty, values.get_mut(&f.name).unwrap()));
        }
        (_, Value::Bytes(raw)) => raw.iter_mut().for_each(|b| *b = rng.next() as u8),
        (_, Value::Number(n)) => *n = rng.number(ty),
        _ => unreachable!(),
    }
}

/// What happens to a host in so many events.
fn history(seed: u64, events: usize, size: u32) {
    let mut host = Host::new(seed, size);
    for _ in 0..events {
        match host.rng.below(10) {
            0..5 => host.swap(),
            5..8 => host.back(),
            _ => host.work(),
        }
    }
}

#[test]
fn a_rollback_past_a_struct_that_lost_all_its_fields() {
    history(9332237985953510924, 8, 118);
}

proptest! {
    #![proptest_config(crate::cases(100_000))]

    #[test]
    fn every_history_of_a_host(seed in any::<u64>(), events in 2usize..9, size in 48u32..400) {
        history(seed, events, size);
    }
}

//! The plan of a rollback, and of any other commit of a policy that is loaded already.

use std::collections::{BTreeMap, BTreeSet};

use super::{ColumnPlan, Fate, Plan, PlanError, row, slots};
use crate::convert::{Pair, check, lower, merge};
use crate::layout::{Layout, Placed, ScopeLayout};
use crate::schema::Scope;
use crate::step::{Call, Linear, MAX_STEPS, Step};

/// Plans the way from the `running` slot's policy to the one that is loaded in `target`, an older or a newer one. The
/// layout stays as it is.
///
/// A column that both name is carried. Another one of the target takes the value of the column of the running policy
/// that it was made of, or that was made of it, over any number of generations, as long as all columns in between are
/// there: forward by the rule, back by the rule turned round ([`Linear::inverse`]), both put together into one step
/// with one rounding. Where types differ, what does not fit becomes the nearest that does. Parts without a
/// counterpart (the rest of an array that was shrunk, a field that was dropped) stay as the target left them.
///
/// What has no such way is retained as the target left it; the reason says why. So is a column from which the newer
/// one was copied (`scx:from`) while its policy went on with the old one too: the two went their own ways.
pub fn plan_back(resident: &Layout, running: u32, target: u32) -> Result<Plan, PlanError> {
    resident.check()?;
    let mut plan = Plan { layout: resident.clone(), columns: Vec::new(), steps: BTreeMap::new() };
    let caller = caller(resident, running, target);
    for (&scope, layout) in &resident.scopes {
        let (mut ops, mut calls) = (Vec::new(), Vec::new());
        for column in layout.columns.iter().filter(|c| c.slots.contains(&target)) {
            if column.slots.contains(&running) {
                plan.columns.push(row(scope, column, Fate::Carried));
                continue;
            }
            let way = match find(layout, running, column).and_then(|way| way.called_by(caller)) {
                Ok(way) => way,
                Err(reason) => {
                    let reason = Some(reason);
                    plan.columns.push(ColumnPlan { reason, ..row(scope, column, Fate::Retained) });
                    continue;
                }
            };
            let from = way.from;
            match &way.how {
                How::Linear(linear) => {
                    let pair =
                        Pair { from: &from.ty, from_at: from.offset, to: &column.ty, to_at: column.offset };
                    lower(pair, linear, &mut ops);
                }
                How::Call { program, .. } => calls.extend(caller.map(|slot| {
                    Step::Call(Call {
                        program: program.clone(),
                        slot,
                        from: from.offset,
                        from_size: from.ty.size(),
                        to: column.offset,
                        to_size: column.ty.size(),
                    })
                })),
            }
            plan.columns.push(way.row(scope, column));
        }
        let mut steps = merge(ops);
        steps.extend(calls);
        let entries = steps.iter().map(Step::entries).sum();
        if entries > MAX_STEPS {
            return Err(PlanError::TooManySteps { scope, steps: entries });
        }
        if !steps.is_empty() {
            plan.steps.insert(scope, steps);
        }
    }
    for (&scope, layout) in &resident.scopes {
        let named = layout.columns.iter().filter(|c| c.slots.contains(&running));
        let dropped = named.filter(|c| !c.slots.contains(&target));
        plan.columns.extend(dropped.map(|c| row(scope, c, Fate::Dropped)));
    }
    Ok(plan)
}

/// How a column of the target gets its value from one of the running policy.
struct Way<'a> {
    from: &'a Placed,
    how: How,
    /// How many derivations lie between the two.
    links: usize,
    /// Whether all of them are turned round.
    back: bool,
}

enum How {
    Linear(Linear),
    /// A conversion that the policies in these slots have.
    Call {
        program: String,
        slots: BTreeSet<u32>,
    },
}

/// The slot of the policy whose conversions the plan calls. One, because each record sees a plan once, by the hand of one
/// policy. The target's own if it has any, since it can run them itself; else the running one's.
fn caller(resident: &Layout, running: u32, target: u32) -> Option<u32> {
    let columns = |layout: &'_ ScopeLayout| -> BTreeSet<u32> {
        let new = layout.columns.iter().filter(|c| c.slots.contains(&target) && !c.slots.contains(&running));
        let ways = new.filter_map(|c| find(layout, running, c).ok());
        let slots = ways.filter_map(|way| match way.how {
            How::Call { slots, .. } => Some(slots),
            How::Linear(_) => None,
        });
        slots.flatten().collect()
    };
    let all: BTreeSet<u32> = resident.scopes.values().flat_map(columns).collect();
    let preferred = [target, running].into_iter().find(|slot| all.contains(slot));
    preferred.or_else(|| all.first().copied())
}

impl Way<'_> {
    /// Itself, unless it needs a conversion that the caller lacks.
    fn called_by(self, caller: Option<u32>) -> Result<Self, String> {
        match &self.how {
            How::Call { program, slots: of } if !caller.is_some_and(|c| of.contains(&c)) => Err(format!(
                "as it was left: only {} has `{program}`, and other columns need conversions of another policy's",
                slots(of)
            )),
            _ => Ok(self),
        }
    }

    fn row(&self, scope: Scope, column: &Placed) -> ColumnPlan {
        let mut parts = vec![if self.back { "brought back" } else { "derived again" }.to_owned()];
        if self.from.ty != column.ty {
            parts.push(format!("{} to {}", self.from.ty, column.ty));
        }
        match &self.how {
            How::Linear(linear) if *linear != Linear::IDENTITY => parts.push(linear.to_string()),
            How::Linear(_) => {}
            How::Call { program, .. } => parts.push(format!("by `{program}`")),
        }
        let fate = Fate::Converted(parts.join(", "));
        let from = Some(format!("{}: {}", self.from.name, self.from.ty));
        let reason = (self.links > 1).then(|| format!("over {} derivations", self.links));
        ColumnPlan { from, reason, ..row(scope, column, fate) }
    }
}

/// A column, what it was made of, what that was made of, and so on as far as it is there.
fn line<'a>(layout: &'a ScopeLayout, column: &'a Placed) -> Vec<&'a Placed> {
    let mut line = vec![column];
    while let Some(source) = line.last().and_then(|c| c.source.as_ref()) {
        // A source is older than what is made of it, so this ends.
        match source.ids.first().and_then(|&id| layout.by_id(id)) {
            Some(placed) if line.iter().all(|c| c.id != placed.id) => line.push(placed),
            _ => break,
        }
    }
    line
}

/// The way from the nearest relative, which is the one with the fewest derivations forward, and of those with the fewest
/// at all; or why there is none. Where the nearest has no way, a value of a farther one would be one that the target
/// never had any part in, so the target is left as it was.
fn find<'a>(layout: &'a ScopeLayout, running: u32, target: &'a Placed) -> Result<Way<'a>, String> {
    let forth = line(layout, target);
    let mut ways: Vec<(bool, usize, usize, Result<Way<'a>, String>)> = Vec::new();
    for from in layout.columns.iter().filter(|c| c.slots.contains(&running)) {
        let back = line(layout, from);
        let meet = |c: &Placed| forth.iter().position(|f| f.id == c.id);
        let Some((up, down)) = back.iter().enumerate().find_map(|(up, c)| meet(c).map(|down| (up, down)))
        else {
            continue;
        };
        // A copy that went its own way is a relative no longer.
        let forked = back[..up].iter().any(|c| c.source.as_ref().is_some_and(|s| s.forked));
        ways.push((forked, down, up, way(from, &back[..up], &forth[..down], target)));
    }
    // What was made of the target itself has its value, what was made of the same source only a like one.
    ways.sort_by_key(|w| (w.0, w.1, w.2));
    match ways.into_iter().next() {
        Some((_, _, _, way)) => way,
        None => Err(lost(layout, running, target)),
    }
}

/// Why no column of the running policy is related to the target's.
fn lost(layout: &ScopeLayout, running: u32, target: &Placed) -> String {
    let line = |c: &Placed| -> Vec<u64> {
        let older = c.source.iter().flat_map(|s| s.ids.iter().copied());
        std::iter::once(c.id).chain(older).collect()
    };
    let own = line(target);
    let related = |c: &&Placed| c.slots.contains(&running) && line(c).iter().any(|id| own.contains(id));
    match layout.columns.iter().find(related) {
        Some(c) => format!("as it was left: a column between it and `{}` is gone with its policy", c.name),
        None => "as it was left: the running policy has nothing that comes of it".to_owned(),
    }
}

/// The way from `from` up its sources in `back`, and down again to `target` through those that `forth` derives.
fn way<'a>(
    from: &'a Placed,
    back: &[&'a Placed],
    forth: &[&'a Placed],
    target: &Placed,
) -> Result<Way<'a>, String> {
    let links = back.len() + forth.len();
    let made = |how| Ok(Way { from, how, links, back: forth.is_empty() });
    let mut linear = Linear::IDENTITY;
    let up = back.iter().map(|c| (*c, true));
    let down = forth.iter().rev().map(|c| (*c, false));
    for (column, turn) in up.chain(down) {
        let Some(source) = &column.source else { continue };
        if turn && source.forked {
            return Err(format!("as it was left: `{}` is a copy that went its own way", column.name));
        }
        if let Some(convert) = &source.rule.convert {
            let program = if turn { convert.inverse.as_ref() } else { Some(&convert.program) };
            let program = program.ok_or_else(|| {
                format!("as it was left: the conversion `{}` has no inverse", convert.program)
            })?;
            if links > 1 {
                return Err(format!("as it was left: `{program}` is one of {links} conversions on the way"));
            }
            if source.declared.is_empty() {
                return Err(format!("as it was left: no policy in a slot has `{program}`"));
            }
            return made(How::Call { program: program.clone(), slots: source.declared.clone() });
        }
        let Some(scale) = &source.rule.scale else { continue };
        let step = if turn { Linear::inverse(scale) } else { Some(Linear::forward(scale)) };
        let all = step.and_then(|step| linear.then(&step));
        linear = all.ok_or_else(|| {
            format!("as it was left: the rules between `{}` and it make no single step", from.name)
        })?;
    }
    // Over several generations the types need not be alike.
    if check(&from.ty, &target.ty, true).is_err() {
        return Err(format!(
            "as it was left: `{}`: {} of {} has nothing of it any more",
            from.name,
            from.ty,
            slots(&from.slots)
        ));
    }
    made(How::Linear(linear))
}

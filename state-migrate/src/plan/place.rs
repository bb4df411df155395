//! Gives new columns their places.

use std::collections::BTreeSet;

use super::{New, PlanError, Retained};
use crate::layout::{Placed, ScopeLayout};
use crate::schema::Scope;

/// Places new columns, the most aligned and then the largest first, and returns them in the order given.
pub(super) fn place_all(
    scope: Scope,
    layout: &mut ScopeLayout,
    running: Option<u32>,
    new: &[New],
    kept: &BTreeSet<u64>,
    slot: u32,
) -> Result<Vec<Placed>, PlanError> {
    let mut order: Vec<usize> = (0..new.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse((new[i].column.ty.align(), new[i].column.ty.size())));
    let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
    for i in order {
        let column = new[i].column;
        let Some(offset) = layout.place(&column.ty) else {
            unplaced.push(column);
            continue;
        };
        let column = Placed {
            id: layout.next_id,
            name: column.name.clone(),
            ty: column.ty.clone(),
            default: column.default,
            unit: column.unit().map(str::to_owned),
            rule: column.rule.clone(),
            offset,
            slots: BTreeSet::from([slot]),
            source: new[i].source(kept, slot),
        };
        layout.next_id += 1;
        layout.columns.push(column.clone());
        placed.push((i, column));
    }
    if unplaced.is_empty() {
        placed.sort_by_key(|p| p.0);
        return Ok(placed.into_iter().map(|p| p.1).collect());
    }
    let only_retained =
        |c: &&Placed| !c.slots.contains(&slot) && running.is_none_or(|r| !c.slots.contains(&r));
    let retained = layout.columns.iter().filter(only_retained).map(|c| Retained {
        column: c.name.clone(),
        size: c.ty.size(),
        slots: c.slots.clone(),
    });
    Err(PlanError::Full {
        scope,
        unplaced: unplaced.iter().map(|c| c.name.clone()).collect(),
        missing: unplaced.iter().fold(0, |sum, c| c.ty.size().saturating_add(sum)),
        free: layout.free_bytes(),
        retained: retained.collect(),
    })
}

//! Whether a layout that was read from somewhere can be one.

use std::collections::BTreeSet;

use super::{HEADER, Layout, Placed, ScopeLayout};
use crate::schema::Scope;
use crate::snapshot::types::fault;

/// The largest record of one scope in bytes: more than fits into any map's value.
pub const MAX_RECORD: u32 = 1 << 20;
/// The most columns of one scope, those that are only kept for a rollback included.
const MAX_PLACED: usize = 4096;

/// Why a layout cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A record's size cannot be.
    #[error(
        "the layout's {scope} record has {size} bytes, which cannot be; the host's registry is damaged: stop the scheduler and \
         start it again"
    )]
    RecordSize {
        /// The scope of the record.
        scope: Scope,
        /// Its size in bytes.
        size: u32,
    },
    /// There are too many columns.
    #[error(
        "the layout has {count} {scope} columns, which cannot be; the host's registry is damaged: stop the scheduler and start \
         it anew"
    )]
    TooManyColumns {
        /// The scope of the columns.
        scope: Scope,
        /// How many there are.
        count: usize,
    },
    /// A column cannot be as it is.
    #[error(
        "{scope}.{column} stands wrong in the layout: {what}; the host's registry is damaged: stop the scheduler and start it \
         again"
    )]
    Column {
        /// The scope of the column.
        scope: Scope,
        /// The column.
        column: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Layout {
    /// Checks what holds for every layout that plans make: columns are aligned, inside the record, apart from each other,
    /// named by a slot and of an id of their own. For layouts that come from outside, as from the host's registry.
    pub fn check(&self) -> Result<(), LayoutError> {
        self.scopes.iter().try_for_each(|(&scope, layout)| check_scope(scope, layout))
    }
}

fn check_scope(scope: Scope, layout: &ScopeLayout) -> Result<(), LayoutError> {
    let (size, count) = (layout.record_size, layout.columns.len());
    if !(HEADER..=MAX_RECORD).contains(&size) {
        return Err(LayoutError::RecordSize { scope, size });
    }
    if count > MAX_PLACED {
        return Err(LayoutError::TooManyColumns { scope, count });
    }
    let mut by_place: Vec<&Placed> = layout.columns.iter().collect();
    by_place.sort_by_key(|c| c.offset);
    let mut end = HEADER;
    let mut ids = BTreeSet::new();
    for column in by_place {
        let wrong = |what| LayoutError::Column { scope, column: column.name.clone(), what };
        if let Some(what) = fault(&column.ty) {
            return Err(wrong(what));
        }
        if column.offset < end {
            return Err(wrong("it overlaps what is before it"));
        }
        if !column.offset.is_multiple_of(column.ty.align()) {
            return Err(wrong("it is not aligned"));
        }
        if column.slots.is_empty() {
            return Err(wrong("no slot names it"));
        }
        if column.id >= layout.next_id || !ids.insert(column.id) {
            return Err(wrong("its id is not its own"));
        }
        end = column.end();
        if end > size {
            return Err(wrong("it reaches past the end of the record"));
        }
    }
    Ok(())
}

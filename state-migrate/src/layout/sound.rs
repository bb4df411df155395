//! Whether a layout that was read from somewhere can be planned with.

use super::{HEADER, Layout, Placed, ScopeLayout};
use crate::schema::Scope;
use crate::types::Type;

/// The largest record; it bounds the work that a damaged layout can cause.
const MAX_RECORD: u32 = 1 << 20;
/// Types nest this deep at most: those of a schema do not come near.
const MAX_DEPTH: u32 = 16;

/// Why a layout is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The record is too small for its header, or too large.
    #[error(
        "the layout's {scope} record is of {size} bytes, which cannot be; the layout is damaged, restart the host"
    )]
    RecordSize {
        /// The scope.
        scope: Scope,
        /// Its size.
        size: u32,
    },
    /// A column cannot be where or what it is.
    #[error("{scope}.{column}: the layout has it {what}; the layout is damaged, restart the host")]
    Column {
        /// The scope.
        scope: Scope,
        /// The column.
        column: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Layout {
    /// Checks what every layout has that came of plans: sound types, each column aligned, in its record, behind the
    /// header, and on bytes of its own. [`crate::plan()`] and [`crate::plan_back`] ask for it.
    pub fn check(&self) -> Result<(), LayoutError> {
        for (&scope, layout) in &self.scopes {
            if !(HEADER..=MAX_RECORD).contains(&layout.record_size) {
                return Err(LayoutError::RecordSize { scope, size: layout.record_size });
            }
            let mut columns: Vec<&Placed> = layout.columns.iter().collect();
            columns.sort_by_key(|c| c.offset);
            let mut end = HEADER;
            for column in &columns {
                if let Some(what) = wrong(layout, column, end) {
                    return Err(LayoutError::Column { scope, column: column.name.clone(), what });
                }
                end = column.end();
            }
        }
        Ok(())
    }
}

fn wrong(layout: &ScopeLayout, column: &Placed, end: u32) -> Option<&'static str> {
    if !sound(&column.ty, 0) {
        return Some("with a type that cannot be");
    }
    if column.offset < end {
        return Some("on bytes of the header or of another column");
    }
    if !column.offset.is_multiple_of(column.ty.align()) {
        return Some("at a place that is not aligned");
    }
    if column.end() > layout.record_size {
        return Some("outside of its record");
    }
    if column.slots.is_empty() {
        return Some("for no slot");
    }
    let twice = layout.columns.iter().filter(|c| c.id == column.id).count() > 1;
    (twice || column.id >= layout.next_id).then_some("with an id that is not its own")
}

fn sound(ty: &Type, depth: u32) -> bool {
    let whole = |size: u32| matches!(size, 1 | 2 | 4 | 8);
    let padded =
        |size: u32, align: u32| size != 0 && size <= MAX_RECORD && whole(align) && size.is_multiple_of(align);
    if depth > MAX_DEPTH {
        return false;
    }
    match ty {
        Type::Int { size, .. } | Type::Enum { size, .. } => whole(*size),
        Type::Bool => true,
        Type::Array { elem, len } => {
            sound(elem, depth + 1)
                && *len > 0
                && elem.size().checked_mul(*len).is_some_and(|s| s <= MAX_RECORD)
        }
        Type::Struct { size, align, fields } => {
            let mut end = 0;
            let fits = fields.iter().all(|f| {
                let fits =
                    sound(&f.ty, depth + 1) && f.offset >= end && f.offset.is_multiple_of(f.ty.align());
                end = f.offset.saturating_add(f.ty.size());
                fits && end <= *size && f.ty.align() <= *align
            });
            padded(*size, *align) && fits
        }
        Type::Bytes { size, align, .. } => padded(*size, *align),
    }
}

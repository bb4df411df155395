//! Where every live column stands in the host's records.

mod check;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::check::{LayoutError, MAX_RECORD};

use crate::schema::Scope;
use crate::types::Type;

/// Bytes at the start of each record that are the host's: a spin lock (4) and the stamp (4). Columns stand behind.
pub const HEADER: u32 = 8;

/// A column with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The column's name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// What it is in a new record; zero without one.
    pub default: Option<i128>,
    /// Where it starts, in bytes from the start of the record.
    pub offset: u32,
    /// The slots whose policy names it; never empty in a layout.
    pub slots: BTreeSet<u32>,
}

impl Placed {
    /// Whether this is that column: name and type identify it in its scope.
    pub fn is(&self, name: &str, ty: &Type) -> bool {
        self.name == name && self.ty == *ty
    }

    /// Where it ends, in bytes from the start of the record.
    fn end(&self) -> u32 {
        self.offset.saturating_add(self.ty.size())
    }
}

/// The columns of one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeLayout {
    /// Size of the host's record in bytes, the header included.
    pub record_size: u32,
    /// The columns, in the order in which they came.
    pub columns: Vec<Placed>,
}

impl ScopeLayout {
    /// Gives a new column the first free place that it fits into; `None` if there is none.
    pub(crate) fn place(&self, ty: &Type) -> Option<u32> {
        let mut taken: Vec<(u32, u32)> = self.columns.iter().map(|c| (c.offset, c.end())).collect();
        taken.sort_unstable();
        let mut at = HEADER.checked_next_multiple_of(ty.align())?;
        for (start, end) in taken {
            if at.checked_add(ty.size())? <= start {
                break;
            }
            at = at.max(end.checked_next_multiple_of(ty.align())?);
        }
        (at.checked_add(ty.size())? <= self.record_size).then_some(at)
    }

    /// Bytes that no column takes.
    pub fn free_bytes(&self) -> u32 {
        let taken = self.columns.iter().fold(HEADER, |sum, c| sum.saturating_add(c.ty.size()));
        self.record_size.saturating_sub(taken)
    }
}

/// The columns of all scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The scopes that the host keeps records for.
    pub scopes: BTreeMap<Scope, ScopeLayout>,
}

impl Layout {
    /// A layout without columns, with the sizes in bytes of the host's records.
    pub fn new(sizes: &[(Scope, u32)]) -> Layout {
        let empty = |&(scope, record_size)| (scope, ScopeLayout { record_size, columns: Vec::new() });
        Layout { scopes: sizes.iter().map(empty).collect() }
    }

    /// The slot's policy is gone: columns that no other slot names are dropped and their bytes are free.
    pub fn evict(&mut self, slot: u32) {
        for scope in self.scopes.values_mut() {
            scope.columns.retain_mut(|c| {
                c.slots.remove(&slot);
                !c.slots.is_empty()
            });
        }
    }

    /// Where a column starts, in bytes from the start of the record.
    pub fn offset(&self, scope: Scope, name: &str, ty: &Type) -> Option<u32> {
        self.columns(scope).iter().find(|c| c.is(name, ty)).map(|c| c.offset)
    }

    /// What a new record starts as: the header zero, each live column its default.
    pub fn image(&self, scope: Scope) -> Vec<u8> {
        let Some(layout) = self.scopes.get(&scope) else { return Vec::new() };
        let mut image = vec![0; layout.record_size as usize];
        for column in &layout.columns {
            if let Some(place) = image.get_mut(column.offset as usize..column.end() as usize) {
                let bytes = column.ty.initial(column.default);
                place.copy_from_slice(&bytes[..place.len()]);
            }
        }
        image
    }

    /// The columns that a slot's policy names.
    pub fn named_by(&self, scope: Scope, slot: u32) -> impl Iterator<Item = &Placed> {
        self.columns(scope).iter().filter(move |c| c.slots.contains(&slot))
    }

    /// Bytes of a scope's record that no column takes.
    pub fn free_bytes(&self, scope: Scope) -> u32 {
        self.scopes.get(&scope).map_or(0, ScopeLayout::free_bytes)
    }

    fn columns(&self, scope: Scope) -> &[Placed] {
        self.scopes.get(&scope).map_or(&[], |s| &s.columns)
    }
}

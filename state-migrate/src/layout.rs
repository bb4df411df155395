//! Where every live column stands in the host's records.

mod check;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::check::{LayoutError, MAX_RECORD};

use crate::rule::Rule;
use crate::schema::Scope;
use crate::types::Type;

/// Bytes at the start of each record that are the host's: a spin lock (4) and the stamp (4). Columns stand behind.
pub const HEADER: u32 = 8;

/// A column with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// A number that no other column of the scope has or had.
    #[serde(default)]
    pub id: u64,
    /// The column's name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// What it is in a new record; zero without one.
    pub default: Option<i128>,
    /// What it counts, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The rule that its policy declared for it. With name, type and unit it identifies the column: a policy that
    /// declares the same finds the value as it is, and the rule is not applied again.
    #[serde(default, skip_serializing_if = "Rule::is_default")]
    pub rule: Rule,
    /// Where it starts, in bytes from the start of the record.
    pub offset: u32,
    /// The slots whose policy names it; never empty in a layout.
    pub slots: BTreeSet<u32>,
    /// The column that its first value was made of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Where a column's first value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The column's [`Placed::id`], then that of its own source, and so on. Some may be gone from the layout.
    pub ids: Vec<u64>,
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// How the value was made of it.
    pub rule: Rule,
    /// Whether the policy that derived the column went on with the source as well. Then the two go their own ways,
    /// and the source is not brought back from the column.
    #[serde(default)]
    pub forked: bool,
    /// The loaded slots whose policy declares the rule, so has the programs of a conversion.
    #[serde(default)]
    pub declared: BTreeSet<u32>,
}

impl Placed {
    /// Whether it has that name and type. In one slot's policy these identify a column; several slots may have
    /// columns of one name and type that differ in their rules or units.
    pub fn is(&self, name: &str, ty: &Type) -> bool {
        self.name == name && self.ty == *ty
    }

    /// Where it ends, in bytes from the start of the record.
    pub(crate) fn end(&self) -> u32 {
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
    /// The id of the next column.
    #[serde(default)]
    pub next_id: u64,
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

    pub(crate) fn by_id(&self, id: u64) -> Option<&Placed> {
        self.columns.iter().find(|c| c.id == id)
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
    /// The name of the policy in each slot, where it has one: see [`Schema::policy`](crate::Schema::policy).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<u32, String>,
}

impl Layout {
    /// A layout without columns, with the sizes in bytes of the host's records.
    pub fn new(sizes: &[(Scope, u32)]) -> Layout {
        let empty = |&(scope, record_size)| (scope, ScopeLayout { record_size, ..ScopeLayout::default() });
        Layout { scopes: sizes.iter().map(empty).collect(), policies: BTreeMap::new() }
    }

    /// The slot's policy is gone: columns that no other slot names are dropped and their bytes are free.
    pub fn evict(&mut self, slot: u32) {
        self.policies.remove(&slot);
        for scope in self.scopes.values_mut() {
            scope.columns.retain_mut(|c| {
                c.slots.remove(&slot);
                if let Some(source) = &mut c.source {
                    source.declared.remove(&slot);
                }
                !c.slots.is_empty()
            });
        }
    }

    /// The name of the policy in a slot; empty where it has none.
    pub fn policy(&self, slot: u32) -> &str {
        self.policies.get(&slot).map_or("", String::as_str)
    }

    /// The column that a slot's policy calls by that name.
    pub fn column(&self, scope: Scope, slot: u32, name: &str) -> Option<&Placed> {
        self.named_by(scope, slot).find(|c| c.name == name)
    }

    /// Where the newest column of that name and type starts, in bytes from the start of the record.
    pub fn offset(&self, scope: Scope, name: &str, ty: &Type) -> Option<u32> {
        self.columns(scope).iter().rev().find(|c| c.is(name, ty)).map(|c| c.offset)
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

    pub(crate) fn columns(&self, scope: Scope) -> &[Placed] {
        self.scopes.get(&scope).map_or(&[], |s| &s.columns)
    }
}

//! Picks the columns of a policy out of the host's records.

use super::table::SavedColumn;
use super::{Key, SnapshotError, Table};
use crate::layout::{Layout, Placed};
use crate::schema::Scope;

/// Whether to save a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Leave it out.
    Skip,
    /// Save it.
    Save,
    /// Save it with the unit of its values.
    SaveIn(String),
}

/// The columns of one scope that are to be saved, with their places in the host's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    columns: Vec<(SavedColumn, usize)>,
}

impl Selection {
    /// Of the columns that the policy in `slot` names, those that `pick` saves.
    pub fn new(layout: &Layout, scope: Scope, slot: u32, mut pick: impl FnMut(&Placed) -> Pick) -> Selection {
        let mut columns = Vec::new();
        for placed in layout.named_by(scope, slot) {
            let unit = match pick(placed) {
                Pick::Skip => continue,
                Pick::Save => None,
                Pick::SaveIn(unit) => Some(unit),
            };
            let column = SavedColumn { name: placed.name.clone(), ty: placed.ty.clone(), unit };
            columns.push((column, placed.offset as usize));
        }
        Selection { columns }
    }

    /// Whether nothing is to be saved.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The table of these records. Without columns it has no rows either.
    pub fn table<K: Key, R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = (K, R)>,
    ) -> Result<Table<K>, SnapshotError> {
        let mut rows = Vec::new();
        if !self.is_empty() {
            for (key, record) in records {
                rows.push((key, self.values(record.as_ref())?));
            }
        }
        Table::new(self.columns.iter().map(|(column, _)| column.clone()).collect(), rows)
    }

    /// The columns' bytes in a record.
    fn values(&self, record: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let mut values = Vec::with_capacity(self.columns.iter().map(|(c, _)| c.size()).sum());
        for (column, at) in &self.columns {
            let end = at.saturating_add(column.size());
            let Some(bytes) = record.get(*at..end) else {
                let (column, len) = (column.name.clone(), record.len());
                return Err(SnapshotError::RecordSize { column, end, len });
            };
            values.extend_from_slice(bytes);
        }
        Ok(values)
    }
}

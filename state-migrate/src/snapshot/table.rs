//! The columns of one scope, with a row for each key.

use super::error::check_text;
use super::key::Key;
use super::wire::{Reader, Writer};
use super::{MAX_FILE, MAX_UNIT, SnapshotError, types};
use crate::schema::{MAX_COLUMNS, MAX_NAME};
use crate::types::Type;

/// A column of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// The unit of its values, if it has one.
    pub unit: Option<String>,
}

/// The columns of one scope and their values, by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<K> {
    /// By name.
    columns: Vec<SavedColumn>,
    /// In order.
    keys: Vec<K>,
    /// The values of each key, one after the other.
    values: Vec<u8>,
}

impl<K> Default for Table<K> {
    fn default() -> Table<K> {
        Table { columns: Vec::new(), keys: Vec::new(), values: Vec::new() }
    }
}

impl<K: Key> Table<K> {
    /// A table of these columns and rows. A row's values are those of all columns, in the order of `columns` and with
    /// nothing between them. Without columns there can be no rows.
    pub fn new(
        columns: Vec<SavedColumn>,
        rows: impl IntoIterator<Item = (K, Vec<u8>)>,
    ) -> Result<Table<K>, SnapshotError> {
        if columns.len() > MAX_COLUMNS {
            return Err(SnapshotError::Limit { what: "columns", found: columns.len(), max: MAX_COLUMNS });
        }
        for column in &columns {
            column.check()?;
        }
        let mut places: Vec<(SavedColumn, usize)> = Vec::with_capacity(columns.len());
        let mut width = 0;
        for column in columns {
            let size = column.size();
            places.push((column, width));
            width += size;
        }
        places.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        if let Some(twice) = places.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
            return Err(SnapshotError::DuplicateColumn { column: twice[0].0.name.clone() });
        }
        let mut rows: Vec<(K, Vec<u8>)> = rows.into_iter().collect();
        if rows.len() > K::MAX_ROWS {
            return Err(SnapshotError::Limit { what: K::ROWS, found: rows.len(), max: K::MAX_ROWS });
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(twice) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(SnapshotError::DuplicateRow { key: twice[0].0.to_string() });
        }
        if let Some((key, values)) = rows.iter().find(|row| row.1.len() != width || width == 0) {
            let (key, len) = (key.to_string(), values.len());
            return Err(SnapshotError::RowSize { key, len, expected: width });
        }
        let found = width.saturating_mul(rows.len());
        if found > MAX_FILE {
            return Err(SnapshotError::Limit { what: "bytes", found, max: MAX_FILE });
        }
        let (mut keys, mut values) = (Vec::with_capacity(rows.len()), Vec::with_capacity(found));
        for (key, row) in rows {
            for (column, at) in &places {
                values.extend_from_slice(&row[*at..at + column.size()]);
            }
            keys.push(key);
        }
        let columns = places.into_iter().map(|(column, _)| column).collect();
        Ok(Table { columns, keys, values })
    }

    /// The columns, by name.
    pub fn columns(&self) -> &[SavedColumn] {
        &self.columns
    }

    /// The keys, in order.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// The keys with the values of all columns, one after the other, in the order of [`Table::columns`].
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&K, &[u8])> {
        // Without columns there are no rows, and `chunks_exact` takes no 0.
        self.keys.iter().zip(self.values.chunks_exact(self.width().max(1)))
    }

    /// The value of one column in one row.
    pub fn value(&self, key: &K, column: &str) -> Option<&[u8]> {
        let row = self.keys.binary_search(key).ok()?;
        let index = self.columns.iter().position(|c| c.name == column)?;
        let start = row * self.width() + width(&self.columns[..index]);
        self.values.get(start..start + self.columns[index].size())
    }

    /// Bytes of a row's values.
    pub fn width(&self) -> usize {
        width(&self.columns)
    }

    pub(super) fn write(&self, out: &mut Writer) -> Result<(), SnapshotError> {
        // `MAX_COLUMNS`, `MAX_NAME`, `MAX_UNIT` and `MAX_ROWS` fit: nothing larger gets into a table.
        out.u16(self.columns.len() as u16);
        for column in &self.columns {
            out.u8(column.name.len() as u8);
            out.bytes(column.name.as_bytes());
            let unit = column.unit.as_deref().unwrap_or_default();
            out.u8(unit.len() as u8);
            out.bytes(unit.as_bytes());
            types::write(&column.ty, out);
        }
        out.u32(self.keys.len() as u32);
        for (key, values) in self.rows() {
            key.write(out);
            out.bytes(values);
        }
        Ok(())
    }

    pub(super) fn read(from: &mut Reader) -> Result<Table<K>, SnapshotError> {
        let mut table = Table::default();
        let count = usize::from(from.u16()?);
        if count > MAX_COLUMNS {
            return Err(SnapshotError::Limit { what: "columns", found: count, max: MAX_COLUMNS });
        }
        for _ in 0..count {
            let column = SavedColumn::read(from)?;
            if table.columns.last().is_some_and(|last| last.name >= column.name) {
                return Err(from.malformed("columns that do not ascend by name"));
            }
            table.columns.push(column);
        }
        let rows = from.u32()? as usize;
        if rows > K::MAX_ROWS {
            return Err(SnapshotError::Limit { what: K::ROWS, found: rows, max: K::MAX_ROWS });
        }
        let width = table.width();
        if width == 0 && rows != 0 {
            return Err(from.malformed("rows without columns"));
        }
        // What is left bounds both, whatever count the file claims.
        table.values.reserve_exact(from.left().min(width.saturating_mul(rows)));
        for _ in 0..rows {
            let key = K::read(from)?;
            if table.keys.last().is_some_and(|last| *last >= key) {
                return Err(from.malformed("rows that do not ascend by key"));
            }
            table.values.extend_from_slice(from.take(width)?);
            table.keys.push(key);
        }
        Ok(table)
    }
}

impl SavedColumn {
    pub(super) fn size(&self) -> usize {
        self.ty.size() as usize
    }

    fn check(&self) -> Result<(), SnapshotError> {
        check_text("column", &self.name, MAX_NAME)?;
        if self.name.is_empty() {
            return Err(SnapshotError::Text { what: "column", text: String::new(), reason: "it is empty" });
        }
        if let Some(unit) = &self.unit {
            check_text("unit", unit, MAX_UNIT)?;
            if unit.is_empty() {
                return Err(SnapshotError::Text { what: "unit", text: String::new(), reason: "it is empty" });
            }
        }
        let control = || (!types::is_plain(&self.ty)).then_some("a field whose name has control characters");
        match types::fault(&self.ty).or_else(control) {
            Some(what) => Err(SnapshotError::BadType { column: self.name.clone(), what }),
            None => Ok(()),
        }
    }

    fn read(from: &mut Reader) -> Result<SavedColumn, SnapshotError> {
        let len = from.u8()?;
        let name = from.text(len.into(), MAX_NAME)?;
        let len = from.u8()?;
        let unit = from.text(len.into(), MAX_UNIT)?;
        let ty = types::read(from)?;
        if name.is_empty() {
            return Err(from.malformed("a column without a name"));
        }
        if let Some(what) = types::fault(&ty) {
            return Err(from.malformed(what));
        }
        Ok(SavedColumn { name, ty, unit: (!unit.is_empty()).then_some(unit) })
    }
}

fn width(columns: &[SavedColumn]) -> usize {
    columns.iter().map(SavedColumn::size).sum()
}

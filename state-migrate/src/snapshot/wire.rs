//! Bytes in, numbers out, and the other way round.

use super::SnapshotError;
use super::error::text_fault;

/// Reads bytes from front to back; reading past the end is an error.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` starts, in bytes from the start of the file.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which stand `at` bytes into the file.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { rest: bytes, at }
    }

    /// The bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// An error about what was read last.
    pub(super) fn malformed(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Malformed { at: self.at, what }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], SnapshotError> {
        let Some((now, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.malformed("a length or count that is larger than what follows"));
        };
        self.rest = rest;
        self.at += len;
        Ok(now)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, SnapshotError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, SnapshotError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text of `len` bytes.
    pub(super) fn text(&mut self, len: usize, max: usize) -> Result<String, SnapshotError> {
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a text that is not UTF-8"))?;
        if text_fault(text, max).is_some() {
            return Err(self.malformed("a text that is too long or has control characters"));
        }
        Ok(text.to_owned())
    }

    /// What `read` makes of the section `number`, all of it.
    pub(super) fn section<T>(
        &mut self,
        number: u16,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        if self.u16()? != number {
            return Err(self.malformed("a section is missing, twice there or unknown"));
        }
        let len = self.u32()?;
        let at = self.at;
        let mut section = Reader::new(self.take(len as usize)?, at);
        let content = read(&mut section)?;
        section.done()?;
        Ok(content)
    }

    /// That nothing is left.
    pub(super) fn done(&self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes behind the end of a section")) }
    }
}

/// Writes numbers as bytes.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// A section of what `write` writes.
    pub(super) fn section(
        &mut self,
        number: u16,
        write: impl FnOnce(&mut Writer) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        self.u16(number);
        let at = self.out.len();
        self.u32(0);
        write(self)?;
        let found = self.out.len() - at - 4;
        let len = u32::try_from(found);
        let len = len.map_err(|_| SnapshotError::Limit { what: "bytes", found, max: super::MAX_FILE })?;
        self.out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

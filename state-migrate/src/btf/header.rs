//! The header of raw BTF: which bytes are types, which are strings.

use std::ops::Range;

use super::BtfError;

/// Bytes of the header that every BTF has.
pub(crate) const BASE_LEN: usize = 24;
/// Bytes of the header that also names a layout section (kernels of 2026 on).
pub(crate) const LAYOUT_LEN: usize = 32;

const MAGIC: u16 = 0xeb9f;

/// The sections of raw BTF, as byte ranges of it, all checked to lie inside.
pub(crate) struct Header {
    /// Length of the header in bytes.
    pub len: usize,
    /// Flags of the header; none are defined yet.
    pub flags: u8,
    /// The type section.
    pub types: Range<usize>,
    /// The string section: not empty, the first and the last byte are NUL.
    pub strings: Range<usize>,
    /// The section that gives the size of each kind, empty where there is none.
    pub layout: Range<usize>,
}

/// Little-endian word at `at`; the caller has checked the bounds, outside it reads 0.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let Some(end) = at.checked_add(4) else { return 0 };
    match bytes.get(at..end).map(<[u8; 4]>::try_from) {
        Some(Ok(word)) => u32::from_le_bytes(word),
        _ => 0,
    }
}

impl Header {
    pub(crate) fn parse(raw: &[u8]) -> Result<Header, BtfError> {
        let &[m0, m1, version, flags, ..] = raw else { return Err(BtfError::Truncated { len: raw.len() }) };
        if raw.len() < BASE_LEN {
            return Err(BtfError::Truncated { len: raw.len() });
        }
        match u16::from_le_bytes([m0, m1]) {
            MAGIC => {}
            magic if magic == MAGIC.swap_bytes() => return Err(BtfError::BigEndian),
            magic => return Err(BtfError::NotBtf { magic }),
        }
        if version != 1 {
            return Err(BtfError::Version { version });
        }
        let len = word(raw, 4) as usize;
        if len < BASE_LEN || len > raw.len() {
            return Err(BtfError::HeaderLength { len });
        }
        let section = |name: &'static str, at: usize| {
            let start = len as u64 + u64::from(word(raw, at));
            let end = start + u64::from(word(raw, at + 4));
            if end > raw.len() as u64 {
                return Err(BtfError::Section { name, end, len: raw.len() });
            }
            Ok(start as usize..end as usize)
        };
        let types = section("type", 8)?;
        let strings = section("string", 16)?;
        let layout = if len >= LAYOUT_LEN { section("layout", 24)? } else { len..len };
        if !word(raw, 8).is_multiple_of(4) || !types.len().is_multiple_of(4) {
            return Err(BtfError::Unaligned { name: "type" });
        }
        let text = &raw[strings.clone()];
        match (text.first(), text.last()) {
            (Some(0), Some(0)) => {}
            (Some(_), Some(0)) => return Err(BtfError::Split),
            _ => return Err(BtfError::Strings),
        }
        Ok(Header { len, flags, types, strings, layout })
    }
}

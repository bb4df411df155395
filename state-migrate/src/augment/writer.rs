//! Writes BTF types behind those of the kernel.

use super::AugmentError;
use crate::btf::Kind;
use crate::types::{StructField, Type};

/// Names of the types written; they only help whoever dumps the result.
const INDEX: Type = Type::Int { size: 4, signed: false };

const KIND_FLAG: u32 = 1 << 31;
const SIGNED: u32 = 1 << 24;
const BOOL: u32 = 1 << 26;

/// A member to write: name, offset in bytes, type.
pub(super) type Member<'a> = (&'a str, u32, &'a Type);

/// Type records and strings to append.
pub(super) struct Writer {
    pub(super) types: Vec<u8>,
    pub(super) strings: Vec<u8>,
    first_string: usize,
    next_id: u32,
    /// The types written so far, as text: unlike equality it tells unions with other members apart. They are few, so
    /// a search is faster than hashing them.
    written: Vec<(String, u32)>,
}

impl Writer {
    /// Appends behind `type_count` types (void included) and `strings` bytes of strings.
    pub(super) fn new(type_count: u32, strings: usize) -> Writer {
        Writer {
            types: Vec::new(),
            strings: Vec::new(),
            first_string: strings,
            next_id: type_count,
            written: Vec::new(),
        }
    }

    /// Writes a struct and the types of its members; an empty name makes it anonymous. Returns its id.
    pub(super) fn structure(
        &mut self,
        name: &str,
        size: u32,
        members: &[Member],
    ) -> Result<u32, AugmentError> {
        self.composite(Kind::Struct, name, size, members)
    }

    /// Writes a union and the types of its members; an empty name makes it anonymous. Returns its id.
    pub(super) fn union(&mut self, name: &str, size: u32, members: &[Member]) -> Result<u32, AugmentError> {
        self.composite(Kind::Union, name, size, members)
    }

    fn composite(
        &mut self,
        kind: Kind,
        name: &str,
        size: u32,
        members: &[Member],
    ) -> Result<u32, AugmentError> {
        let mut body = Vec::with_capacity(members.len() * 12);
        for &(name, offset, ty) in members {
            let bits = offset.checked_mul(8).ok_or(AugmentError::TooLarge)?;
            let (name, ty) = (self.string(name)?, self.ty(ty)?);
            body.extend([name, ty, bits]);
        }
        let vlen = u16::try_from(members.len()).map_err(|_| AugmentError::TooLarge)?;
        self.record(name, info(kind) | u32::from(vlen), size, &body)
    }

    fn ty(&mut self, ty: &Type) -> Result<u32, AugmentError> {
        let key = format!("{ty:?}");
        if let Some((_, id)) = self.written.iter().find(|(t, _)| *t == key) {
            return Ok(*id);
        }
        let id = match ty {
            Type::Int { size, signed } => {
                let bits = size.checked_mul(8).ok_or(AugmentError::TooLarge)?;
                let encoding = if *signed { SIGNED } else { 0 };
                self.record(&ty.to_string(), info(Kind::Int), *size, &[encoding | bits])?
            }
            Type::Bool => self.record("bool", info(Kind::Int), 1, &[BOOL | 8])?,
            // Without a name it is compatible with every enum, and CO-RE asks for no enumerator of a field.
            Type::Enum { size, signed } => {
                let kind = if *size == 8 { Kind::Enum64 } else { Kind::Enum };
                self.record("", info(kind) | if *signed { KIND_FLAG } else { 0 }, *size, &[])?
            }
            Type::Array { elem, len } => {
                let (elem, index) = (self.ty(elem)?, self.ty(&INDEX)?);
                self.record("", info(Kind::Array), 0, &[elem, index, *len])?
            }
            Type::Struct { size, fields, .. } => self.structure("", *size, &members(fields))?,
            Type::Bytes { size, view, .. } => self.union("", *size, &members(&view.0))?,
        };
        self.written.push((key, id));
        Ok(id)
    }

    fn record(
        &mut self,
        name: &str,
        info: u32,
        size_or_type: u32,
        extra: &[u32],
    ) -> Result<u32, AugmentError> {
        let name = self.string(name)?;
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(AugmentError::TooLarge)?;
        Ok(id)
    }

    fn string(&mut self, text: &str) -> Result<u32, AugmentError> {
        if text.is_empty() {
            return Ok(0);
        }
        let at = self.first_string + self.strings.len();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        u32::try_from(at).map_err(|_| AugmentError::TooLarge)
    }
}

/// The members that fields make.
pub(super) fn members(fields: &[StructField]) -> Vec<Member<'_>> {
    fields.iter().map(|f| (f.name.as_str(), f.offset, &f.ty)).collect()
}

fn info(kind: Kind) -> u32 {
    (kind as u32) << 24
}

//! Column types as bytes.

use super::SnapshotError;
use super::error::text_fault;
use super::wire::{Reader, Writer};
use crate::schema::MAX_NAME;
use crate::types::{MAX_ALIGN, StructField, Type, View};

/// Arrays and structs may nest this deep; a schema's do less.
const MAX_DEPTH: u32 = 12;
/// Types and fields that one column's type may be made of.
const MAX_PARTS: u32 = 4096;
/// The largest value of one column in bytes, as in a schema.
const MAX_SIZE: u32 = 1 << 20;

const UNSIGNED: u8 = 1;
const SIGNED: u8 = 2;
const BOOL: u8 = 3;
const ENUM: u8 = 4;
const SIGNED_ENUM: u8 = 5;
const ARRAY: u8 = 6;
const STRUCT: u8 = 7;
const BYTES: u8 = 8;

/// Appends a type that [`fault`] finds nothing wrong with.
pub(super) fn write(ty: &Type, out: &mut Writer) {
    match ty {
        Type::Int { size, signed } => {
            out.u8(if *signed { SIGNED } else { UNSIGNED });
            out.u8(*size as u8);
        }
        Type::Bool => out.u8(BOOL),
        Type::Enum { size, signed } => {
            out.u8(if *signed { SIGNED_ENUM } else { ENUM });
            out.u8(*size as u8);
        }
        Type::Array { elem, len } => {
            out.u8(ARRAY);
            out.u32(*len);
            write(elem, out);
        }
        Type::Bytes { size, align, .. } => {
            out.u8(BYTES);
            out.u32(*size);
            out.u8(*align as u8);
        }
        Type::Struct { size, align, fields } => {
            out.u8(STRUCT);
            out.u32(*size);
            out.u8(*align as u8);
            out.u16(fields.len() as u16);
            for field in fields {
                out.u8(field.name.len() as u8);
                out.bytes(field.name.as_bytes());
                out.u32(field.offset);
                write(&field.ty, out);
            }
        }
    }
}

/// Reads a type; the caller looks for its [`fault`].
pub(super) fn read(from: &mut Reader) -> Result<Type, SnapshotError> {
    let mut parts = MAX_PARTS;
    nested(from, MAX_DEPTH, &mut parts)
}

fn nested(from: &mut Reader, depth: u32, parts: &mut u32) -> Result<Type, SnapshotError> {
    let deeper = depth.checked_sub(1).ok_or_else(|| from.malformed("a type that is nested too deep"))?;
    *parts = parts.checked_sub(1).ok_or_else(|| from.malformed("a type of too many parts"))?;
    Ok(match from.u8()? {
        kind @ (UNSIGNED | SIGNED) => Type::Int { size: from.u8()?.into(), signed: kind == SIGNED },
        BOOL => Type::Bool,
        kind @ (ENUM | SIGNED_ENUM) => Type::Enum { size: from.u8()?.into(), signed: kind == SIGNED_ENUM },
        ARRAY => {
            let len = from.u32()?;
            Type::Array { elem: Box::new(nested(from, deeper, parts)?), len }
        }
        STRUCT => {
            let (size, align, count) = (from.u32()?, from.u8()?.into(), from.u16()?);
            let mut fields = Vec::new();
            for _ in 0..count {
                let len = from.u8()?;
                let name = from.text(len.into(), MAX_NAME)?;
                let offset = from.u32()?;
                fields.push(StructField { name, offset, ty: nested(from, deeper, parts)? });
            }
            Type::Struct { size, align, fields }
        }
        BYTES => Type::Bytes { size: from.u32()?, align: from.u8()?.into(), view: View::default() },
        _ => return Err(from.malformed("an unknown kind of type")),
    })
}

/// Whether all names in a type that [`fault`] finds nothing wrong with can be shown on a terminal.
pub(super) fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Int { .. } | Type::Bool | Type::Enum { .. } | Type::Bytes { .. } => true,
        Type::Array { elem, .. } => is_plain(elem),
        Type::Struct { fields, .. } => {
            fields.iter().all(|f| text_fault(&f.name, MAX_NAME).is_none() && is_plain(&f.ty))
        }
    }
}

/// What is wrong with a type, if anything: no schema has one like that.
pub(crate) fn fault(ty: &Type) -> Option<&'static str> {
    let mut parts = MAX_PARTS;
    fault_at(ty, MAX_DEPTH, &mut parts)
}

fn fault_at(ty: &Type, depth: u32, parts: &mut u32) -> Option<&'static str> {
    let Some(deeper) = depth.checked_sub(1) else { return Some("a type that is nested too deep") };
    let Some(left) = parts.checked_sub(1) else { return Some("a type of too many parts") };
    *parts = left;
    match ty {
        Type::Int { size, .. } | Type::Enum { size, .. } => {
            (!matches!(size, 1 | 2 | 4 | 8)).then_some("an integer of a size other than 1, 2, 4 or 8")
        }
        Type::Bool => None,
        Type::Bytes { size, align, .. } => {
            if *size > MAX_SIZE {
                return Some("a type that is too large");
            }
            let whole = matches!(align, 1 | 2 | 4 | 8) && *size > 0 && size.is_multiple_of(*align);
            (!whole).then_some("bytes of a size that their alignment does not divide")
        }
        Type::Array { elem, len } => {
            // The element first: it bounds the size that is multiplied.
            fault_at(elem, deeper, parts)
                .or_else(|| (*len == 0).then_some("an array without elements"))
                .or_else(|| (ty.size() > MAX_SIZE).then_some("a type that is too large"))
        }
        Type::Struct { size, align, fields } => {
            if *size > MAX_SIZE {
                return Some("a type that is too large");
            }
            if !matches!(align, 1 | 2 | 4 | 8) || *align > MAX_ALIGN || !size.is_multiple_of(*align) {
                return Some("a struct of a size that its alignment does not divide");
            }
            if fields.is_empty() {
                return Some("a struct without fields");
            }
            let mut end = 0;
            for field in fields {
                if field.name.is_empty() || field.name.len() > MAX_NAME {
                    return Some("a field whose name is empty or too long");
                }
                if let Some(what) = fault_at(&field.ty, deeper, parts) {
                    return Some(what);
                }
                if field.offset < end {
                    return Some("fields that overlap");
                }
                end = field.offset.saturating_add(field.ty.size());
            }
            (end > *size).then_some("a field that reaches out of its struct")
        }
    }
}

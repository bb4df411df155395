//! The types that a column can have.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// No column is aligned to more than this many bytes.
pub const MAX_ALIGN: u32 = 8;

/// The type of a column, as far as its bytes go: two types that are equal here read and write the same bytes. Names
/// of typedefs, enums and structs do not count, names of a struct's fields do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// An integer of 1, 2, 4 or 8 bytes.
    Int {
        /// Size in bytes.
        size: u32,
        /// Whether it is signed.
        signed: bool,
    },
    /// A `bool`: one byte, 0 or 1.
    Bool,
    /// An enum, whatever its enumerators.
    Enum {
        /// Size in bytes.
        size: u32,
        /// Whether its values are signed.
        signed: bool,
    },
    /// An array.
    Array {
        /// The type of each element.
        elem: Box<Type>,
        /// The number of elements, at least 1.
        len: u32,
    },
    /// A struct in a field.
    Struct {
        /// Size in bytes, padding included.
        size: u32,
        /// Natural alignment in bytes.
        align: u32,
        /// The fields, by offset.
        fields: Vec<StructField>,
    },
    /// A union: bytes that mean nothing to a plan. They are carried as they are or not at all.
    Bytes {
        /// Size in bytes.
        size: u32,
        /// Natural alignment in bytes.
        align: u32,
        /// How the policy sees them. It does not count for equality: another policy may see the same bytes otherwise.
        #[serde(default)]
        view: View,
    },
}

/// The members of a union, for CO-RE to find them by name. All views are equal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct View(pub Vec<StructField>);

impl PartialEq for View {
    fn eq(&self, _: &View) -> bool {
        true
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A field of a [`Type::Struct`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StructField {
    /// The field's name.
    pub name: String,
    /// Where it starts in the struct, in bytes.
    pub offset: u32,
    /// Its type.
    pub ty: Type,
}

impl Type {
    /// Is it one number: an integer, an enum or a truth value?
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Type::Int { .. } | Type::Enum { .. } | Type::Bool)
    }

    /// Size in bytes.
    pub fn size(&self) -> u32 {
        match self {
            Type::Int { size, .. }
            | Type::Enum { size, .. }
            | Type::Struct { size, .. }
            | Type::Bytes { size, .. } => *size,
            Type::Bool => 1,
            Type::Array { elem, len } => elem.size().saturating_mul(*len),
        }
    }

    /// Natural alignment in bytes: 1, 2, 4 or 8.
    pub fn align(&self) -> u32 {
        let align = match self {
            Type::Int { size, .. } | Type::Enum { size, .. } => *size,
            Type::Bool => 1,
            Type::Array { elem, .. } => return elem.align(),
            Type::Struct { align, .. } | Type::Bytes { align, .. } => *align,
        };
        align.clamp(1, MAX_ALIGN)
    }

    /// The type without its array dimensions.
    pub(crate) fn innermost(&self) -> &Type {
        match self {
            Type::Array { elem, .. } => elem.innermost(),
            other => other,
        }
    }

    /// The bytes of a new column: the default in the column or in each element of an array, zero without one, and
    /// zero in a struct or union, its padding included.
    pub(crate) fn initial(&self, default: Option<i128>) -> Vec<u8> {
        let mut bytes = vec![0; self.size() as usize];
        let elem = self.innermost();
        if let (Some(value), true) = (default, elem.is_number()) {
            let value = value.to_le_bytes();
            // A default is of at most 8 bytes; `max` keeps a type of size 0 from hanging or panicking here.
            let size = (elem.size() as usize).clamp(1, value.len());
            for chunk in bytes.chunks_mut(size) {
                chunk.copy_from_slice(&value[..chunk.len()]);
            }
        }
        bytes
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Int { size, signed } => {
                write!(f, "{}{}", if *signed { "s" } else { "u" }, u64::from(*size) * 8)
            }
            Type::Bool => f.write_str("bool"),
            Type::Enum { size, signed } => {
                write!(f, "{}enum{}", if *signed { "s" } else { "" }, u64::from(*size) * 8)
            }
            Type::Array { elem, .. } => {
                // C writes the outer dimension first.
                write!(f, "{}", elem.innermost())?;
                let mut ty = self;
                while let Type::Array { elem, len } = ty {
                    write!(f, "[{len}]")?;
                    ty = elem;
                }
                Ok(())
            }
            Type::Struct { fields, .. } => {
                f.write_str("struct{ ")?;
                for (i, field) in fields.iter().enumerate() {
                    write!(f, "{}{}: {}", if i == 0 { "" } else { ", " }, field.name, field.ty)?;
                }
                f.write_str(" }")
            }
            Type::Bytes { size, .. } => write!(f, "union({size} bytes)"),
        }
    }
}

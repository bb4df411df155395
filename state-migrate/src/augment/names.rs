//! Keeps the names of a policy's structs apart from the kernel's.

use std::collections::BTreeMap;

use super::AugmentError;
use crate::btf::{Btf, Kind};
use crate::schema::{Schema, Scope};
use crate::types::Type;

/// Checks the names of the structs to be appended against the kernel's, and returns the nested structs to append.
///
/// libbpf takes every struct of a name, with or without a `___flavor`, as a candidate for a relocation, so there must
/// be one only. A nested struct that the kernel has too, just the same, needs none appended.
pub(super) fn check_names<'s>(
    kernel: &Btf,
    schema: &'s Schema,
) -> Result<BTreeMap<&'s str, &'s Type>, AugmentError> {
    let mut nested: BTreeMap<&str, &Type> = schema.structs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let composites = |kind| kernel.ids(kind).map(move |id| (kind, id));
    for (kind, id) in composites(Kind::Struct).chain(composites(Kind::Union)) {
        let name = essential(kernel.name(id));
        if kind == Kind::Struct && Scope::ALL.iter().any(|s| s.struct_name() == name) {
            return Err(AugmentError::NameTaken { name: name.to_owned() });
        }
        let taken = nested.iter().filter(|(n, ty)| essential(n) == name && kind_of(ty) == kind);
        let taken: Vec<&str> = taken.map(|(name, _)| *name).collect();
        for own in taken {
            if nested.remove(own).is_some_and(|ty| !same_fields(kernel, id, ty)) {
                return Err(AugmentError::NestedNameTaken { name: own.to_owned() });
            }
        }
    }
    Ok(nested)
}

fn kind_of(ty: &Type) -> Kind {
    if matches!(ty, Type::Bytes { .. }) { Kind::Union } else { Kind::Struct }
}

/// Whether each field of `ty` stands at the same place in the kernel's struct.
fn same_fields(kernel: &Btf, id: u32, ty: &Type) -> bool {
    let (size, fields) = match ty {
        Type::Struct { size, fields, .. } => (size, fields),
        Type::Bytes { size, view, .. } => (size, &view.0),
        _ => return false,
    };
    let stands = |name: &str, offset: u32| {
        kernel.members(id).any(|m| m.name == name && u64::from(m.bit_offset) == u64::from(offset) * 8)
    };
    kernel.size(id) == Some(*size) && fields.iter().all(|f| stands(&f.name, f.offset))
}

/// A name without its `___flavor`, as libbpf's `bpf_core_essential_name_len` has it.
fn essential(name: &str) -> &str {
    let bytes = name.as_bytes();
    let is_flavor = |w: &[u8]| w[0] != b'_' && w[1..4] == *b"___" && w[4] != b'_';
    match bytes.windows(5).rposition(is_flavor) {
        Some(at) => name.get(..at + 1).unwrap_or(name),
        None => name,
    }
}

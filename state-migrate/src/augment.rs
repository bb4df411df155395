//! The kernel's BTF with a policy's structs appended, as the layout has them.
//!
//! libbpf's own BTF writer indexes all of the kernel's types first, which is most of what a load costs. BTF is a
//! header, a type section and a string section (and a layout section, from kernels of 2026 on), so this appends to the
//! sections by bytes.

mod names;
mod writer;

use std::collections::HashSet;

use crate::btf::header::{BASE_LEN, Header, LAYOUT_LEN, word};
use crate::btf::{Btf, BtfError, Kind};
use crate::layout::Layout;
use crate::schema::{Schema, Scope};
use crate::types::Type;

use self::names::check_names;
use self::writer::{Writer, members};

/// Why the kernel's BTF could not be augmented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AugmentError {
    /// The kernel's BTF cannot be read.
    #[error("kernel BTF: {0}")]
    Btf(#[from] BtfError),
    /// The header has parts that are not known here, so their offsets cannot be mended.
    #[error(
        "kernel BTF has a header with unknown parts ({what}); this kernel needs a newer version of this tool"
    )]
    UnknownHeader {
        /// What is unknown.
        what: &'static str,
    },
    /// There are bytes that belong to no section known here.
    #[error(
        "kernel BTF has {len} bytes at {at} that belong to no known section; this kernel needs a newer version of this tool"
    )]
    UnknownBytes {
        /// Where they start.
        at: usize,
        /// How many they are.
        len: usize,
    },
    /// Two sections share bytes.
    #[error("kernel BTF has sections that overlap; the BTF is damaged, read it again")]
    Overlap,
    /// The kernel has a struct with the name of a scope's struct.
    #[error(
        "the kernel has a `struct {name}` of its own (or is its BTF augmented already?), so the policy's would be \
         ambiguous; give the kernel's own BTF, and report it if this was that"
    )]
    NameTaken {
        /// The struct's name.
        name: String,
    },
    /// A struct in a column has the name of another struct of the kernel.
    #[error(
        "`{name}`, a struct or union in the policy's state, is another one in the kernel, and an access through a \
         pointer would go by the kernel's; rename it"
    )]
    NestedNameTaken {
        /// The struct's name.
        name: String,
    },
    /// The layout has no place for a column of the schema.
    #[error("{scope}.{field}: the layout has no place for it in slot {slot}; plan the swap first")]
    NotPlaced {
        /// The scope of the field.
        scope: Scope,
        /// The field.
        field: String,
        /// The slot.
        slot: u32,
    },
    /// The result does not fit the format.
    #[error("the augmented BTF is larger than the format allows; make the policy's state smaller")]
    TooLarge,
}

/// The kernel's BTF with one struct for each scope of the schema appended: named as the policy names it, as large as
/// the record, with the schema's columns where `layout` has them for `slot`. libbpf takes it as `btf_custom_path`.
pub fn augment(
    kernel_btf: &[u8],
    schema: &Schema,
    layout: &Layout,
    slot: u32,
) -> Result<Vec<u8>, AugmentError> {
    let header = Header::parse(kernel_btf)?;
    check_sections(kernel_btf, &header)?;
    let kernel = Btf::parse(kernel_btf)?;
    let nested = check_names(&kernel, schema)?;
    let mut writer = Writer::new(kernel.type_count(), header.strings.len());
    for (&scope, columns) in &schema.scopes {
        let mut fields = Vec::with_capacity(columns.len());
        for column in columns {
            let at = layout.named_by(scope, slot).find(|c| c.is(&column.name, &column.ty));
            let Some(at) = at else {
                return Err(AugmentError::NotPlaced { scope, field: column.name.clone(), slot });
            };
            // The schema's type: the layout's may see a union otherwise.
            fields.push((column.name.as_str(), at.offset, &column.ty));
        }
        fields.sort_by_key(|m| m.1);
        let size = layout.scopes.get(&scope).map_or(0, |s| s.record_size);
        writer.structure(scope.struct_name(), size, &fields)?;
    }
    for (name, ty) in nested {
        match ty {
            Type::Struct { size, fields, .. } => writer.structure(name, *size, &members(fields))?,
            Type::Bytes { size, view, .. } => writer.union(name, *size, &members(&view.0))?,
            _ => continue,
        };
    }
    assemble(kernel_btf, &header, &writer.types, &writer.strings)
}

/// Refuses what could not be kept right: flags, header parts and bytes that are not known here.
fn check_sections(raw: &[u8], header: &Header) -> Result<(), AugmentError> {
    if header.flags != 0 {
        return Err(AugmentError::UnknownHeader { what: "flags" });
    }
    // A shorter header than one with a layout section cannot name one: its extra bytes are unknown.
    let known = if header.len >= LAYOUT_LEN { LAYOUT_LEN } else { BASE_LEN };
    if raw[known..header.len].iter().any(|&b| b != 0) {
        return Err(AugmentError::UnknownHeader { what: "fields" });
    }
    let mut sections = [&header.types, &header.layout, &header.strings];
    sections.sort_by_key(|s| (s.start, s.end));
    let mut end = header.len;
    for section in sections.into_iter().filter(|s| !s.is_empty()) {
        if section.start < end {
            return Err(AugmentError::Overlap);
        }
        check_padding(raw, end, section.start)?;
        end = section.end;
    }
    check_padding(raw, end, raw.len())
}

/// Zeros between sections are padding; anything else is something unknown.
fn check_padding(raw: &[u8], start: usize, end: usize) -> Result<(), AugmentError> {
    if raw[start..end].iter().any(|&b| b != 0) {
        return Err(AugmentError::UnknownBytes { at: start, len: end - start });
    }
    Ok(())
}

/// Header, types, layout section, strings: the order of the kernel's own BTF and the one that libbpf asks for.
fn assemble(raw: &[u8], header: &Header, types: &[u8], strings: &[u8]) -> Result<Vec<u8>, AugmentError> {
    let type_len = header.types.len() + types.len();
    let layout = &raw[header.layout.clone()];
    let padded = layout.len().next_multiple_of(4);
    let str_len = header.strings.len() + strings.len();
    let mut out = Vec::with_capacity(header.len + type_len + padded + str_len);
    out.extend_from_slice(&raw[..header.len]);
    let mut set = |at: usize, value: usize| match u32::try_from(value) {
        Ok(value) if value < i32::MAX as u32 => {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
            Ok(())
        }
        _ => Err(AugmentError::TooLarge),
    };
    set(8, 0)?;
    set(12, type_len)?;
    set(16, type_len + padded)?;
    set(20, str_len)?;
    if !layout.is_empty() {
        set(24, type_len)?;
    }
    out.extend_from_slice(&raw[header.types.clone()]);
    out.extend_from_slice(types);
    out.extend_from_slice(layout);
    out.resize(out.len() + padded - layout.len(), 0);
    out.extend_from_slice(&raw[header.strings.clone()]);
    out.extend_from_slice(strings);
    debug_assert_eq!(word(&out, 20) as usize, str_len);
    Ok(out)
}

/// The scheduler functions of a kernel that no program can call: their last parameter is the implicit `aux`, which the
/// kernel fills in only through a twin `<name>_impl`, and the twin is missing. Such a kernel runs no scheduler.
pub fn malformed_kfuncs(kernel_btf: &Btf) -> Vec<String> {
    let funcs: Vec<(u32, &str)> = kernel_btf
        .ids(Kind::Func)
        .map(|id| (id, kernel_btf.name(id)))
        .filter(|(_, name)| name.starts_with("scx_bpf_"))
        .collect();
    let names: HashSet<&str> = funcs.iter().map(|f| f.1).collect();
    let takes_aux = |id| {
        let proto = kernel_btf.referenced(id);
        proto.and_then(|p| kernel_btf.params(p).last()).is_some_and(|(name, _)| name == "aux")
    };
    let mut broken: Vec<String> = funcs
        .iter()
        // A twin takes `aux` by right.
        .filter(|(_, name)| !name.ends_with("_impl") && !names.contains(format!("{name}_impl").as_str()))
        .filter(|&&(id, _)| takes_aux(id))
        .map(|(_, name)| (*name).to_owned())
        .collect();
    broken.sort();
    broken.dedup();
    broken
}

//! Sections of ELF files: a BPF object's BTF, and the object that is embedded in a policy's binary.

use std::ops::Range;

use object::{File, Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::btf::{Btf, Kind};

/// The sections that a BPF object has its struct_ops maps in.
const OPS_SECTIONS: [&str; 2] = [".struct_ops.link", ".struct_ops"];

/// Why a section could not be had from an ELF file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not an ELF file, or a damaged one.
    #[error("not a readable ELF file ({reason}); give a BPF object or a policy's binary")]
    NotElf {
        /// What the reader of the file says.
        reason: String,
    },
    /// The section is there but cannot be read.
    #[error("section `{name}` cannot be read ({reason}); build the file anew")]
    Unreadable {
        /// The section's name.
        name: String,
        /// What the reader of the file says.
        reason: String,
    },
    /// The BPF object has no BTF.
    #[error("the BPF object has no `.BTF` section, so its state cannot be read; compile it with `-g`")]
    NoBtf,
}

/// The `.BTF` section of a BPF object.
pub fn btf_section(elf: &[u8]) -> Result<&[u8], ObjectError> {
    section(elf, ".BTF")?.ok_or(ObjectError::NoBtf)
}

/// The bytes of a named section of any ELF file; `None` if it has no such section.
pub fn section<'a>(elf: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ObjectError> {
    let file = File::parse(elf).map_err(|e| ObjectError::NotElf { reason: e.to_string() })?;
    let Some(section) = file.section_by_name(name) else { return Ok(None) };
    let data = section.data();
    data.map(Some).map_err(|e| ObjectError::Unreadable { name: name.to_owned(), reason: e.to_string() })
}

/// The name that a policy gives itself: `name` of the `sched_ext_ops` in its BPF object. `None` if the object has none that
/// can be read.
pub fn policy_name(elf: &[u8], btf: &Btf<'_>) -> Option<String> {
    let file = File::parse(elf).ok()?;
    let section = OPS_SECTIONS.iter().find_map(|name| file.section_by_name(name))?;
    let ops = file
        .symbols()
        .find(|s| s.kind() == SymbolKind::Data && s.section_index() == Some(section.index()))?;
    let member = btf.members(btf.find(Kind::Struct, "sched_ext_ops")?).find(|m| m.name == "name")?;
    let size = btf.array(member.type_id)?.len as usize;
    // In an object file, the address of a symbol is its place in the section.
    let at = usize::try_from(ops.address()).ok()?.checked_add(member.bit_offset as usize / 8)?;
    let field = section.data().ok()?.get(at..at.checked_add(size)?)?;
    let name = std::str::from_utf8(field.split(|byte| *byte == 0).next()?).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The names that an object needs from elsewhere and does not do without: symbols that are undefined and not weak.
pub fn undefined(elf: &[u8]) -> Result<Vec<String>, ObjectError> {
    let file = File::parse(elf).map_err(|e| ObjectError::NotElf { reason: e.to_string() })?;
    let needed = file.symbols().filter(|s| s.is_undefined() && !s.is_weak());
    let names = needed.filter_map(|s| s.name().ok()).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Where in the file the instructions of a function stand, by its symbol; `None` if there is none of that name.
pub fn function(elf: &[u8], name: &str) -> Result<Option<Range<usize>>, ObjectError> {
    let file = File::parse(elf).map_err(|e| ObjectError::NotElf { reason: e.to_string() })?;
    let mut symbols = file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.name() == Ok(name));
    let Some(symbol) = symbols.next() else { return Ok(None) };
    let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
    let Some((start, size)) = section.and_then(|s| s.file_range()) else { return Ok(None) };
    // In an object file, the address of a symbol is its place in the section.
    let (from, len) = (symbol.address(), symbol.size());
    let inside = from.checked_add(len).is_some_and(|end| end <= size);
    let end = start.checked_add(from).and_then(|at| at.checked_add(len));
    let range =
        end.filter(|&end| inside && end <= elf.len() as u64).map(|end| (end - len) as usize..end as usize);
    Ok(range)
}

//! Global variables of a BPF object: which section, where. Taken from the ELF symbols, because a section's offsets in
//! BTF are only filled in by libbpf.

use std::collections::BTreeMap;

use libbpf_rs::OpenObject;
use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSymbol as _;

use crate::error::Error;
use crate::error::Result;

/// Where a global variable is.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Section of the object.
    pub section: String,
    /// Offset there, bytes.
    pub offset: usize,
    /// Its size, bytes.
    pub size: usize,
}

/// The global variables of a BPF object, by name.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, Variable>);

impl Variables {
    /// Read them from a BPF object.
    pub fn of(elf: &[u8]) -> Result<Variables> {
        let file = object::File::parse(elf)
            .map_err(|e| Error::NotAPolicy { why: format!("not a BPF object: {e}") })?;
        let mut variables = BTreeMap::new();
        for symbol in file.symbols().filter(|s| s.kind() == object::SymbolKind::Data) {
            let section = symbol.section_index().and_then(|i| file.section_by_index(i).ok());
            if let (Ok(name), Some(Ok(section))) = (symbol.name(), section.as_ref().map(|s| s.name())) {
                let place = Variable {
                    section: section.to_string(),
                    offset: symbol.address() as usize,
                    size: symbol.size() as usize,
                };
                variables.insert(name.to_string(), place);
            }
        }
        Ok(Variables(variables))
    }

    /// Where the variable of this name is.
    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.0.get(name)
    }

    /// Name and place of each that starts with `prefix`.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Variable)> {
        self.0
            .iter()
            .map(|(name, place)| (name.as_str(), place))
            .filter(move |(name, _)| name.starts_with(prefix))
    }

    /// Set `name` to `value`, before the object is loaded.
    pub fn set(&self, object: &mut OpenObject, name: &str, value: &[u8]) -> Result<()> {
        let missing = || Error::NoSetting { name: name.to_string(), size: value.len() };
        let place = self.get(name).filter(|v| v.size == value.len()).ok_or_else(missing)?;
        write(object, place, value).ok_or_else(missing)
    }
}

/// Overwrite a variable's initial value.
pub(crate) fn write(object: &mut OpenObject, place: &Variable, value: &[u8]) -> Option<()> {
    let mut map = object.maps_mut().find(|m| is_section(&m.name().to_string_lossy(), &place.section))?;
    map.initial_value_mut()?.get_mut(place.offset..place.offset + value.len())?.copy_from_slice(value);
    Some(())
}

/// So much of a map's name the kernel keeps (`BPF_OBJ_NAME_LEN`, Linux v7.3 include/uapi/linux/bpf.h, less the zero).
const KEPT: usize = 15;

/// libbpf names the map of a plain `.rodata` or `.bss` after the object, and any other after its section.
pub(crate) fn is_section(map: &str, section: &str) -> bool {
    map == section
        || (map.ends_with(section) && !section[1..].contains('.') && !map.starts_with('.'))
        || (map.len() == KEPT && map.starts_with('.') && section.starts_with(map))
}

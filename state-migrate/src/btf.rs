//! A reader of raw BTF, as in `/sys/kernel/btf/vmlinux` or an object's `.BTF` section.
//!
//! Every access is bounds-checked: no input makes it panic. An id or an offset that leads nowhere reads as nothing
//! (`None`, an empty name, an empty iterator), so callers need not check references that they follow.

pub(crate) mod header;
pub(crate) mod kind;

use std::collections::BTreeMap;

pub use self::kind::Kind;

use self::header::{Header, word};
use self::kind::{raw_kind, vlen};

/// Why bytes are not BTF that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Shorter than the header.
    #[error("BTF is cut short: {len} bytes are less than its header; read the file again")]
    Truncated {
        /// Bytes there were.
        len: usize,
    },
    /// Not BTF at all.
    #[error("not BTF: it starts with {magic:#06x} instead of 0xeb9f; give raw BTF or the `.BTF` section")]
    NotBtf {
        /// What stands where the magic should.
        magic: u16,
    },
    /// From a machine of the other byte order.
    #[error("BTF is big-endian, only little-endian is supported; build the object with `-target bpfel`")]
    BigEndian,
    /// A version of the format other than 1.
    #[error("BTF is of version {version}, only version 1 is known; update this tool")]
    Version {
        /// The version found.
        version: u8,
    },
    /// The header's own length makes no sense.
    #[error("BTF header claims a length of {len} bytes, which cannot be; the BTF is damaged, build it anew")]
    HeaderLength {
        /// The length claimed.
        len: usize,
    },
    /// A section reaches past the end.
    #[error("BTF {name} section ends at byte {end} of {len}; the BTF is cut short, read or build it anew")]
    Section {
        /// Which section.
        name: &'static str,
        /// Where it ends, in bytes.
        end: u64,
        /// How many bytes there are.
        len: usize,
    },
    /// A section is not aligned to 4 bytes.
    #[error("BTF {name} section is not aligned to 4 bytes; the BTF is damaged, build it anew")]
    Unaligned {
        /// Which section.
        name: &'static str,
    },
    /// BTF of a module: its ids and strings continue those of the kernel.
    #[error("BTF is split (a kernel module's?): it builds on other BTF; give the base BTF, `vmlinux`")]
    Split,
    /// The string section is empty or its end is missing.
    #[error("BTF string section is empty or not closed by a NUL; the BTF is damaged, build it anew")]
    Strings,
    /// A type's record reaches past the end of the type section.
    #[error("BTF type {id} reaches past the type section; the BTF is damaged, build it anew")]
    TypeTruncated {
        /// The type's id.
        id: u32,
    },
    /// A type's name is none of the strings.
    #[error("BTF type {id} has a name outside the string section; the BTF is damaged, build it anew")]
    NameOutside {
        /// The type's id.
        id: u32,
    },
    /// A kind that neither this code nor the BTF itself gives the size of.
    #[error("BTF type {id} is of the unknown kind {kind}; update this tool")]
    UnknownKind {
        /// The type's id.
        id: u32,
        /// The kind's number.
        kind: u32,
    },
}

/// What BTF says of an integer type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntInfo {
    /// Size in bytes.
    pub size: u32,
    /// Number of bits that count; less than the size in old-style bitfields.
    pub bits: u32,
    /// Bit at which they start; 0 but for old-style bitfields.
    pub bit_offset: u32,
    /// Whether it is signed.
    pub signed: bool,
    /// Whether it is a `bool`.
    pub bool: bool,
}

/// A member of a struct or union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name, empty for an anonymous member.
    pub name: &'a str,
    /// The id of its type.
    pub type_id: u32,
    /// Where it starts, in bits from the start of the struct.
    pub bit_offset: u32,
    /// Bits of a bitfield, 0 for an ordinary member.
    pub bitfield_size: u32,
}

/// An array type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayInfo {
    /// The id of the elements' type.
    pub elem: u32,
    /// The id of the index' type.
    pub index: u32,
    /// The number of elements.
    pub len: u32,
}

/// A variable's place in a data section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasecVar {
    /// The id of the variable (of [`Kind::Var`]).
    pub type_id: u32,
    /// Where it starts in the section, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// A declaration tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeclTag<'a> {
    /// The id of the tag itself.
    pub id: u32,
    /// The id of what is tagged.
    pub target: u32,
    /// The member or parameter of the target that is tagged, -1 for the target itself.
    pub component: i32,
    /// The text.
    pub text: &'a str,
}

/// Raw BTF, walked once. Type ids run from 0 (void) to [`Btf::type_count`], exclusive.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type's record starts in `types`, by id less 1.
    offsets: Vec<u32>,
}

/// Bytes that every type's record starts with: name, info, size or type.
const RECORD: usize = 12;

impl<'a> Btf<'a> {
    /// Reads raw BTF. Walks all types once; a header longer than the one known here is tolerated.
    pub fn parse(raw: &'a [u8]) -> Result<Btf<'a>, BtfError> {
        let header = Header::parse(raw)?;
        let types = &raw[header.types];
        // Small objects average 20 bytes a type, kernels 24.
        let mut offsets = Vec::with_capacity(types.len() / 20);
        let mut at = 0;
        while at < types.len() {
            let id = offsets.len() as u32 + 1;
            if types.len() - at < RECORD {
                return Err(BtfError::TypeTruncated { id });
            }
            let info = word(types, at + 4);
            let kind = raw_kind(info);
            let (once, each) = match Kind::of_info(info) {
                Some(kind) => kind.extra(),
                None => layout_entry(&raw[header.layout.clone()], kind)
                    .ok_or(BtfError::UnknownKind { id, kind })?,
            };
            let end = at + RECORD + once + each * vlen(info);
            if end > types.len() {
                return Err(BtfError::TypeTruncated { id });
            }
            // Strings that are appended behind these must not become its name.
            if word(types, at) as usize >= header.strings.len() {
                return Err(BtfError::NameOutside { id });
            }
            offsets.push(at as u32);
            at = end;
        }
        Ok(Btf { types, strings: &raw[header.strings], offsets })
    }

    /// One more than the highest type id; void counts.
    pub fn type_count(&self) -> u32 {
        self.offsets.len() as u32 + 1
    }

    /// The kind of a type; `None` if there is no such type or its kind is unknown here.
    pub fn kind(&self, id: u32) -> Option<Kind> {
        if id == 0 {
            return Some(Kind::Void);
        }
        Kind::of_info(word(self.types, self.at(id)? + 4))
    }

    /// The name of a type, empty if it has none. For a declaration tag, its text.
    pub fn name(&self, id: u32) -> &'a str {
        self.at(id).map_or("", |at| self.string(word(self.types, at)))
    }

    /// The size in bytes of an int, struct, union, enum, float or data section.
    pub fn size(&self, id: u32) -> Option<u32> {
        match self.kind(id)? {
            Kind::Int
            | Kind::Struct
            | Kind::Union
            | Kind::Enum
            | Kind::Enum64
            | Kind::Float
            | Kind::Datasec => Some(self.size_or_type(id)),
            _ => None,
        }
    }

    /// The type that a pointer, typedef, qualifier, type tag, variable, function or declaration tag refers to; of a
    /// function prototype, what it returns.
    pub fn referenced(&self, id: u32) -> Option<u32> {
        match self.kind(id)? {
            Kind::Ptr
            | Kind::Typedef
            | Kind::Volatile
            | Kind::Const
            | Kind::Restrict
            | Kind::TypeTag
            | Kind::Var
            | Kind::Func
            | Kind::FuncProto
            | Kind::DeclTag => Some(self.size_or_type(id)),
            _ => None,
        }
    }

    /// What BTF says of an integer type.
    pub fn int(&self, id: u32) -> Option<IntInfo> {
        let extra = word(self.body(id, Kind::Int)?, 0);
        Some(IntInfo {
            size: self.size_or_type(id),
            bits: extra & 0xff,
            bit_offset: (extra >> 16) & 0xff,
            signed: extra & (1 << 24) != 0,
            bool: extra & (1 << 26) != 0,
        })
    }

    /// What BTF says of an array type.
    pub fn array(&self, id: u32) -> Option<ArrayInfo> {
        let body = self.body(id, Kind::Array)?;
        Some(ArrayInfo { elem: word(body, 0), index: word(body, 4), len: word(body, 8) })
    }

    /// The members of a struct or union, in order.
    pub fn members(&self, id: u32) -> impl Iterator<Item = Member<'a>> {
        let body = self.body(id, Kind::Struct).or_else(|| self.body(id, Kind::Union));
        let bitfields = self.kind_flag(id);
        self.elements(body, 12).map(move |m| {
            let offset = word(m, 8);
            let (bit_offset, bitfield_size) =
                if bitfields { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Member { name: self.string(word(m, 0)), type_id: word(m, 4), bit_offset, bitfield_size }
        })
    }

    /// Whether an enum's values are signed.
    pub fn enum_signed(&self, id: u32) -> bool {
        self.kind_flag(id)
    }

    /// The enumerators of an enum with their values, sign-extended to 64 bits if the enum is signed.
    pub fn enumerators(&self, id: u32) -> impl Iterator<Item = (&'a str, u64)> {
        self.raw_enumerators(id).map(|(name, value)| (self.string(name), value))
    }

    /// The variables of a data section.
    pub fn datasec_vars(&self, id: u32) -> impl Iterator<Item = DatasecVar> {
        self.elements(self.body(id, Kind::Datasec), 12).map(|v| DatasecVar {
            type_id: word(v, 0),
            offset: word(v, 4),
            size: word(v, 8),
        })
    }

    /// The parameters of a function prototype, as name and type id.
    pub fn params(&self, id: u32) -> impl Iterator<Item = (&'a str, u32)> {
        self.elements(self.body(id, Kind::FuncProto), 8).map(|p| (self.string(word(p, 0)), word(p, 4)))
    }

    /// The ids of all types of a kind, in order.
    pub fn ids(&self, kind: Kind) -> impl Iterator<Item = u32> {
        (1..self.type_count()).filter(move |&id| self.kind(id) == Some(kind))
    }

    /// The first type of this kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        self.ids(kind).find(|&id| self.at(id).is_some_and(|at| self.string_is(word(self.types, at), name)))
    }

    /// All declaration tags, in order.
    pub fn all_decl_tags(&self) -> impl Iterator<Item = DeclTag<'a>> {
        self.ids(Kind::DeclTag).filter_map(|id| {
            let component = word(self.body(id, Kind::DeclTag)?, 0).cast_signed();
            Some(DeclTag { id, target: self.size_or_type(id), component, text: self.name(id) })
        })
    }

    /// The texts of the declaration tags on a type (`component` -1) or on one of its members or parameters.
    pub fn decl_tags(&self, target: u32, component: i32) -> impl Iterator<Item = &'a str> {
        self.all_decl_tags().filter(move |t| t.target == target && t.component == component).map(|t| t.text)
    }

    /// The value of the first enumerator of that name in any enum, sign-extended to 64 bits if its enum is signed.
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.all_enumerators().find(|&(at, _)| self.string_is(at, name)).map(|(_, value)| value)
    }

    /// All enumerators whose name starts with `prefix`; the first of a name counts.
    pub fn enumerators_with_prefix(&self, prefix: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for (at, value) in self.all_enumerators() {
            if self.tail(at).starts_with(prefix.as_bytes()) {
                found.entry(self.string(at).to_owned()).or_insert(value);
            }
        }
        found
    }

    fn all_enumerators(&self) -> impl Iterator<Item = (u32, u64)> {
        (1..self.type_count()).flat_map(|id| self.raw_enumerators(id))
    }

    /// Enumerators as offset of the name and value.
    fn raw_enumerators(&self, id: u32) -> impl Iterator<Item = (u32, u64)> {
        let signed = self.kind_flag(id);
        let (body, each) = match self.body(id, Kind::Enum) {
            Some(body) => (Some(body), 8),
            None => (self.body(id, Kind::Enum64), 12),
        };
        self.elements(body, each).map(move |e| {
            let low = word(e, 4);
            let value = match (each, signed) {
                (8, true) => i64::from(low.cast_signed()).cast_unsigned(),
                (8, false) => u64::from(low),
                _ => u64::from(word(e, 8)) << 32 | u64::from(low),
            };
            (word(e, 0), value)
        })
    }

    fn at(&self, id: u32) -> Option<usize> {
        self.offsets.get(id.checked_sub(1)? as usize).map(|&at| at as usize)
    }

    fn size_or_type(&self, id: u32) -> u32 {
        self.at(id).map_or(0, |at| word(self.types, at + 8))
    }

    fn kind_flag(&self, id: u32) -> bool {
        self.at(id).is_some_and(|at| word(self.types, at + 4) >> 31 != 0)
    }

    /// What stands behind the record's common part, if the type is of that kind.
    fn body(&self, id: u32, kind: Kind) -> Option<&'a [u8]> {
        let at = self.at(id)?;
        let info = word(self.types, at + 4);
        if Kind::of_info(info) != Some(kind) {
            return None;
        }
        let (once, each) = kind.extra();
        let start = at + RECORD;
        self.types.get(start..start + once + each * vlen(info))
    }

    fn elements(&self, body: Option<&'a [u8]>, each: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        body.unwrap_or_default().chunks_exact(each)
    }

    /// The strings from `at` on.
    fn tail(&self, at: u32) -> &'a [u8] {
        self.strings.get(at as usize..).unwrap_or_default()
    }

    /// The string at `at`; empty if it is not UTF-8, which no compiler writes.
    fn string(&self, at: u32) -> &'a str {
        let tail = self.tail(at);
        let len = tail.iter().position(|&b| b == 0).unwrap_or(0);
        std::str::from_utf8(&tail[..len]).unwrap_or_default()
    }

    fn string_is(&self, at: u32, name: &str) -> bool {
        self.tail(at).strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Bytes once and for each element of a kind, as the BTF's own layout section has them.
fn layout_entry(layout: &[u8], kind: u32) -> Option<(usize, usize)> {
    let entry = layout.chunks_exact(4).nth(kind as usize)?;
    Some((entry[0] as usize, entry[1] as usize))
}

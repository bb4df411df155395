//! Turns the fields of BTF structs into column types.

use std::collections::BTreeMap;

use super::{MAX_NAME, SchemaError, Scope};
use crate::btf::{Btf, Kind, Member};
use crate::types::{StructField, Type, View};

/// Arrays and structs may nest this deep.
const MAX_DEPTH: u32 = 8;
/// Qualifiers and typedefs in a row; more can only be a circle.
const MAX_TYPEDEFS: u32 = 32;
/// Fields of all structs inside columns together.
const MAX_FIELDS: usize = 4096;
/// The largest column in bytes; it bounds the work that damaged BTF can cause.
const MAX_SIZE: u32 = 1 << 20;

/// Structs that the kernel's verifier finds by name in map values, and treats in its own way. A `bpf_spin_lock` among
/// them: the kernel allows one per map value, and the record's header has it; nor could a plan carry a lock that an op
/// of the old policy may hold.
const KERNEL_STRUCTS: [&str; 11] = [
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_task_work",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
    "bpf_dynptr",
];

/// Where a field is, for messages: the scope and the path from its struct.
struct At<'p> {
    scope: Scope,
    path: &'p str,
}

/// Reads fields, and remembers the named structs that it met inside columns.
pub(super) struct Reader<'b> {
    btf: &'b Btf<'b>,
    fields_left: usize,
    pub(super) structs: BTreeMap<String, Type>,
}

impl<'b> Reader<'b> {
    pub(super) fn new(btf: &'b Btf<'b>) -> Reader<'b> {
        Reader { btf, fields_left: MAX_FIELDS, structs: BTreeMap::new() }
    }

    /// The fields of a scope's struct, in order.
    pub(super) fn scope_struct(&mut self, scope: Scope, id: u32) -> Result<Vec<StructField>, SchemaError> {
        let fields = self.fields(&At { scope, path: "" }, id, 0)?;
        if fields.is_empty() {
            return Err(SchemaError::EmptyScope { scope });
        }
        Ok(fields)
    }

    /// The type of what is not a field of state itself; `path` names it in messages.
    pub(super) fn part(&mut self, scope: Scope, path: &str, id: u32) -> Result<Type, SchemaError> {
        self.ty(&At { scope, path }, id, 0)
    }

    fn fields(&mut self, at: &At, id: u32, depth: u32) -> Result<Vec<StructField>, SchemaError> {
        let size = self.btf.size(id).unwrap_or(0);
        let (mut fields, mut end) = (Vec::<StructField>::new(), 0);
        for member in self.btf.members(id) {
            let path = join(at.path, member.name);
            let at = At { scope: at.scope, path: &path };
            let field = self.field(&at, &member, depth)?;
            if fields.iter().any(|f| f.name == field.name) {
                return Err(at.error(|scope, field| SchemaError::DuplicateField { scope, field }));
            }
            if !field.offset.is_multiple_of(field.ty.align()) {
                return Err(at.error(|scope, field| SchemaError::Packed { scope, field }));
            }
            // C cannot overlap fields or leave the struct, and the loop is bounded by the size because of it.
            let field_end = field.offset.saturating_add(field.ty.size());
            if field.offset < end || field_end > size {
                return Err(at.malformed());
            }
            end = field_end;
            fields.push(field);
        }
        Ok(fields)
    }

    fn field(&mut self, at: &At, member: &Member, depth: u32) -> Result<StructField, SchemaError> {
        if member.name.is_empty() {
            return Err(at.error(|scope, field| SchemaError::Anonymous { scope, field }));
        }
        self.member(at, member, depth)
    }

    fn member(&mut self, at: &At, member: &Member, depth: u32) -> Result<StructField, SchemaError> {
        if member.name.len() > MAX_NAME {
            return Err(at.error(|scope, field| SchemaError::NameTooLong { scope, field }));
        }
        if member.bitfield_size != 0 || !member.bit_offset.is_multiple_of(8) {
            return Err(at.error(|scope, field| SchemaError::Bitfield { scope, field }));
        }
        let ty = self.ty(at, member.type_id, depth)?;
        if ty.size() > MAX_SIZE {
            return Err(at.error(|scope, field| SchemaError::TooLarge { scope, field, max: MAX_SIZE }));
        }
        Ok(StructField { name: member.name.to_owned(), offset: member.bit_offset / 8, ty })
    }

    fn ty(&mut self, at: &At, id: u32, depth: u32) -> Result<Type, SchemaError> {
        if depth == MAX_DEPTH {
            return Err(at.error(|scope, field| SchemaError::TooDeep { scope, field, max: MAX_DEPTH }));
        }
        let id = self.resolve(at, id)?;
        match self.btf.kind(id) {
            Some(Kind::Int) => self.int(at, id),
            Some(Kind::Enum | Kind::Enum64) => {
                let size = self.btf.size(id).unwrap_or(0);
                check_int_size(at, size)?;
                Ok(Type::Enum { size, signed: self.btf.enum_signed(id) })
            }
            Some(Kind::Array) => self.array(at, id, depth),
            Some(Kind::Struct) => self.nested(at, id, depth),
            Some(Kind::Ptr) => Err(at.error(|scope, field| SchemaError::Pointer { scope, field })),
            Some(Kind::Float) => Err(at.error(|scope, field| SchemaError::Float { scope, field })),
            Some(Kind::Union) => self.union(at, id, depth),
            Some(Kind::Fwd) => Err(at.error(|scope, field| SchemaError::Forward { scope, field })),
            _ => Err(at.malformed()),
        }
    }

    /// Looks through typedefs and qualifiers.
    fn resolve(&self, at: &At, mut id: u32) -> Result<u32, SchemaError> {
        for _ in 0..MAX_TYPEDEFS {
            match (self.btf.kind(id), self.btf.referenced(id)) {
                (
                    Some(Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag),
                    Some(to),
                ) => id = to,
                _ => return Ok(id),
            }
        }
        Err(at.malformed())
    }

    fn int(&self, at: &At, id: u32) -> Result<Type, SchemaError> {
        let int = self.btf.int(id).ok_or_else(|| at.malformed())?;
        check_int_size(at, int.size)?;
        if int.bool && int.size == 1 {
            return Ok(Type::Bool);
        }
        if int.bits != int.size * 8 || int.bit_offset != 0 {
            return Err(at.error(|scope, field| SchemaError::Bitfield { scope, field }));
        }
        Ok(Type::Int { size: int.size, signed: int.signed })
    }

    fn array(&mut self, at: &At, id: u32, depth: u32) -> Result<Type, SchemaError> {
        let array = self.btf.array(id).ok_or_else(|| at.malformed())?;
        if array.len == 0 {
            return Err(at.error(|scope, field| SchemaError::ZeroArray { scope, field }));
        }
        let elem = Box::new(self.ty(at, array.elem, depth + 1)?);
        Ok(Type::Array { elem, len: array.len })
    }

    fn nested(&mut self, at: &At, id: u32, depth: u32) -> Result<Type, SchemaError> {
        let (name, size) = self.composite(at, id)?;
        let fields = self.fields(at, id, depth + 1)?;
        if fields.is_empty() {
            return Err(at.error(|scope, field| SchemaError::EmptyStruct { scope, field }));
        }
        let align = fields.iter().map(|f| f.ty.align()).max().unwrap_or(1);
        // An array of it would have elements that are not aligned.
        if !size.is_multiple_of(align) {
            return Err(at.error(|scope, field| SchemaError::Packed { scope, field }));
        }
        let ty = Type::Struct { size, align, fields };
        self.remember(name, &ty);
        Ok(ty)
    }

    /// A union is bytes, but its members have to be such as can be state: a pointer means nothing to the next version
    /// in a union either.
    fn union(&mut self, at: &At, id: u32, depth: u32) -> Result<Type, SchemaError> {
        let (name, size) = self.composite(at, id)?;
        let (mut align, mut view) = (1, Vec::new());
        for member in self.btf.members(id) {
            let path = join(at.path, member.name);
            let at = At { scope: at.scope, path: &path };
            let field = self.member(&at, &member, depth + 1)?;
            if field.offset != 0 || field.ty.size() > size {
                return Err(at.malformed());
            }
            align = align.max(field.ty.align());
            view.push(field);
        }
        if view.is_empty() || size == 0 {
            return Err(at.error(|scope, field| SchemaError::EmptyStruct { scope, field }));
        }
        if !size.is_multiple_of(align) {
            return Err(at.error(|scope, field| SchemaError::Packed { scope, field }));
        }
        let ty = Type::Bytes { size, align, view: View(view) };
        self.remember(name, &ty);
        Ok(ty)
    }

    /// Name and size of a struct or union, checked, and its members counted.
    fn composite(&mut self, at: &At, id: u32) -> Result<(&'b str, u32), SchemaError> {
        let (name, size) = (self.btf.name(id), self.btf.size(id).unwrap_or(0));
        if KERNEL_STRUCTS.contains(&name) {
            let name = name.to_owned();
            return Err(at.error(|scope, field| SchemaError::KernelStruct { scope, field, name }));
        }
        if size > MAX_SIZE {
            return Err(at.error(|scope, field| SchemaError::TooLarge { scope, field, max: MAX_SIZE }));
        }
        self.fields_left = self.fields_left.checked_sub(self.btf.members(id).count()).ok_or_else(|| {
            at.error(|scope, field| SchemaError::TooManyFields { scope, field, max: MAX_FIELDS })
        })?;
        Ok((name, size))
    }

    fn remember(&mut self, name: &str, ty: &Type) {
        if !name.is_empty() {
            self.structs.entry(name.to_owned()).or_insert_with(|| ty.clone());
        }
    }
}

impl At<'_> {
    fn error(&self, make: impl FnOnce(Scope, String) -> SchemaError) -> SchemaError {
        make(self.scope, self.path.to_owned())
    }

    fn malformed(&self) -> SchemaError {
        self.error(|scope, field| SchemaError::Malformed { scope, field })
    }
}

fn check_int_size(at: &At, size: u32) -> Result<(), SchemaError> {
    if matches!(size, 1 | 2 | 4 | 8) {
        return Ok(());
    }
    Err(at.error(|scope, field| SchemaError::IntSize { scope, field, size }))
}

fn join(path: &str, name: &str) -> String {
    let name = if name.is_empty() { "<anonymous>" } else { name };
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

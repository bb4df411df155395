//! Builds BTF byte by byte.

use state_migrate::{Column, Kind, Rule, Schema, StructField, Type, View};

pub const SIGNED: u32 = 1;
pub const BOOL: u32 = 4;
const KIND_FLAG: u32 = 1 << 31;

/// BTF under construction. The methods that add a type return its id.
#[derive(Clone)]
pub struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { types: Vec::new(), strings: vec![0], next: 1 }
    }

    pub fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    pub fn raw(&mut self, name: &str, info: u32, size_or_type: u32, extra: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    pub fn int(&mut self, name: &str, size: u32, encoding: u32) -> u32 {
        self.raw(name, info(Kind::Int, 0), size, &[(encoding << 24) | (size * 8)])
    }

    pub fn array(&mut self, elem: u32, len: u32) -> u32 {
        self.raw("", info(Kind::Array, 0), 0, &[elem, elem, len])
    }

    /// A struct; members as name, type, offset in bytes.
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let mut extra = Vec::new();
        for &(name, ty, offset) in members {
            extra.extend([self.string(name), ty, offset * 8]);
        }
        self.raw(name, info(Kind::Struct, members.len()), size, &extra)
    }

    /// A struct with one member that is a bitfield of `bits`.
    pub fn bitfield(&mut self, name: &str, ty: u32, bits: u32) -> u32 {
        let flags = self.string("flags");
        self.raw(name, info(Kind::Struct, 1) | KIND_FLAG, 4, &[flags, ty, bits << 24])
    }

    pub fn union(&mut self, name: &str, size: u32, members: &[(&str, u32)]) -> u32 {
        let mut extra = Vec::new();
        for &(name, ty) in members {
            extra.extend([self.string(name), ty, 0]);
        }
        self.raw(name, info(Kind::Union, members.len()), size, &extra)
    }

    pub fn enumeration(&mut self, name: &str, size: u32, signed: bool, values: &[(&str, i64)]) -> u32 {
        let wide = size == 8;
        let mut extra = Vec::new();
        for &(name, value) in values {
            extra.extend([self.string(name), value as u32]);
            if wide {
                extra.push((value >> 32) as u32);
            }
        }
        let kind = if wide { Kind::Enum64 } else { Kind::Enum };
        let flag = if signed { KIND_FLAG } else { 0 };
        self.raw(name, info(kind, values.len()) | flag, size, &extra)
    }

    /// A pointer, typedef, qualifier, forward declaration or function.
    pub fn refer(&mut self, kind: Kind, name: &str, to: u32) -> u32 {
        self.raw(name, info(kind, 0), to, &[])
    }

    pub fn proto(&mut self, params: &[(&str, u32)]) -> u32 {
        let mut extra = Vec::new();
        for &(name, ty) in params {
            extra.extend([self.string(name), ty]);
        }
        self.raw("", info(Kind::FuncProto, params.len()), 0, &extra)
    }

    pub fn func(&mut self, name: &str, params: &[(&str, u32)]) -> u32 {
        let proto = self.proto(params);
        self.refer(Kind::Func, name, proto)
    }

    pub fn var(&mut self, name: &str, ty: u32) -> u32 {
        self.raw(name, info(Kind::Var, 0), ty, &[1])
    }

    pub fn datasec(&mut self, name: &str, vars: &[(u32, u32, u32)]) -> u32 {
        let extra: Vec<u32> = vars.iter().flat_map(|v| [v.0, v.1, v.2]).collect();
        self.raw(name, info(Kind::Datasec, vars.len()), 64, &extra)
    }

    pub fn tag(&mut self, text: &str, target: u32, component: i32) -> u32 {
        self.raw(text, info(Kind::DeclTag, 0), target, &[component as u32])
    }

    /// Types of `ty` as a compiler would write them.
    pub fn ty(&mut self, ty: &Type) -> u32 {
        match ty {
            Type::Int { size, signed } => {
                let int = self.int("int", *size, if *signed { SIGNED } else { 0 });
                self.refer(Kind::Typedef, "number_t", int)
            }
            Type::Bool => self.int("_Bool", 1, BOOL),
            Type::Enum { size, signed } => {
                self.enumeration("choice", *size, *signed, &[("ONE", 1), ("TWO", 2)])
            }
            Type::Array { elem, len } => {
                let elem = self.ty(elem);
                self.array(elem, *len)
            }
            Type::Struct { size, fields, .. } => {
                let ids: Vec<u32> = fields.iter().map(|f| self.ty(&f.ty)).collect();
                let members: Vec<_> =
                    fields.iter().zip(ids).map(|(f, id)| (f.name.as_str(), id, f.offset)).collect();
                self.structure("", *size, &members)
            }
            Type::Bytes { size, view, .. } => {
                let ids: Vec<u32> = view.0.iter().map(|f| self.ty(&f.ty)).collect();
                let members: Vec<_> = view.0.iter().zip(ids).map(|(f, id)| (f.name.as_str(), id)).collect();
                self.union("", *size, &members)
            }
        }
    }

    /// A scope's struct with these columns, laid out and tagged as in C.
    pub fn scope(&mut self, name: &str, columns: &[Column]) -> u32 {
        let ids: Vec<u32> = columns.iter().map(|c| self.ty(&c.ty)).collect();
        let (mut members, mut end) = (Vec::new(), 0u32);
        for (column, id) in columns.iter().zip(ids) {
            let offset = end.next_multiple_of(column.ty.align());
            members.push((column.name.as_str(), id, offset));
            end = offset + column.ty.size();
        }
        let id = self.structure(name, end.next_multiple_of(8), &members);
        for (i, column) in columns.iter().enumerate() {
            for tag in tags(column) {
                self.tag(&tag, id, i as i32);
            }
        }
        id
    }

    /// All that a schema declares.
    pub fn schema(&mut self, schema: &Schema) {
        for (scope, columns) in &schema.scopes {
            self.scope(scope.struct_name(), columns);
        }
        self.conversions(schema.conversions.iter().map(|(name, s)| (name.as_str(), &s.from, &s.to)));
        let int = self.int("unsigned long", 8, 0);
        for queue in &schema.queues {
            let var = self.var(&queue.name, int);
            self.tag(&format!("scx:queue={queue}"), var, -1);
        }
    }

    /// What `SCXU_CONVERSIONS()` leaves: name, and the types that it takes and gives.
    pub fn conversions<'t>(&mut self, list: impl Iterator<Item = (&'t str, &'t Type, &'t Type)>) {
        let (mut members, mut end) = (Vec::new(), 0u32);
        for (name, from, to) in list {
            let at = from.size().next_multiple_of(to.align());
            let (from, to, size) = (self.ty(from), self.ty(to), (at + to.size()).next_multiple_of(8));
            let members_of = [("from", from, 0), ("to", to, at)];
            members.push((name, self.structure("", size, &members_of), end));
            end += size;
        }
        if !members.is_empty() {
            self.structure("policy_conversions", end, &members);
        }
    }

    pub fn build(&self) -> Vec<u8> {
        self.assemble(24, &[])
    }

    /// With a header that names a layout section, between types and strings as the kernel has it.
    pub fn build_with_layout(&self, layout: &[u8]) -> Vec<u8> {
        self.assemble(32, layout)
    }

    fn assemble(&self, header: u32, layout: &[u8]) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let (types, layout_len) = (self.types.len() as u32, layout.len() as u32);
        let strings = self.strings.len() as u32;
        let words = [header, 0, types, types + layout_len, strings, types, layout_len];
        for word in &words[..if header == 24 { 5 } else { 7 }] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(layout);
        out.extend_from_slice(&self.strings);
        out
    }
}

/// The tags that declare a column's default, unit and rule.
pub fn tags(column: &Column) -> Vec<String> {
    let Rule { from, scale, saturate, convert } = &column.rule;
    let mut tags = Vec::new();
    tags.extend(column.default.map(|v| format!("scx:default={v}")));
    tags.extend(column.unit.as_ref().map(|v| format!("scx:unit={v}")));
    tags.extend(from.as_ref().map(|v| format!("scx:from={v}")));
    tags.extend(scale.as_ref().map(|v| format!("scx:scale={v}")));
    tags.extend(saturate.then(|| "scx:saturate".to_owned()));
    if let Some(convert) = convert {
        tags.push(format!("scx:convert={}", convert.program));
        tags.extend(convert.inverse.as_ref().map(|v| format!("scx:inverse={v}")));
    }
    tags
}

pub fn info(kind: Kind, vlen: usize) -> u32 {
    (kind as u32) << 24 | vlen as u32
}

pub fn u(bits: u32) -> Type {
    Type::Int { size: bits / 8, signed: false }
}

pub fn s(bits: u32) -> Type {
    Type::Int { size: bits / 8, signed: true }
}

/// A union with one member.
pub fn union(member: Type) -> Type {
    let (size, align) = (member.size(), member.align());
    let view = View(vec![StructField { name: "all".into(), offset: 0, ty: member }]);
    Type::Bytes { size, align, view }
}

pub fn array(elem: Type, len: u32) -> Type {
    Type::Array { elem: Box::new(elem), len }
}

pub fn column(name: &str, ty: Type) -> Column {
    Column { name: name.to_owned(), ty, default: None, unit: None, momentary: false, rule: Rule::default() }
}

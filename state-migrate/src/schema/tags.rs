//! The `scx:` declaration tags: defaults and queues.

use super::{MAX_NAME, Queue, QueueOrder, SchemaError, Scope};
use crate::btf::{Btf, DeclTag, Kind};
use crate::types::{StructField, Type};

const PREFIX: &str = "scx:";
const DEFAULT: &str = "scx:default=";
const QUEUE: &str = "scx:queue=";

/// The `scx:` tags of a policy's BTF. Each is taken out by the one who understands it; what is left is an error, so
/// that a misspelt tag is not taken for none.
pub(super) struct Tags<'a> {
    tags: Vec<DeclTag<'a>>,
}

impl<'a> Tags<'a> {
    pub(super) fn collect(btf: &Btf<'a>) -> Tags<'a> {
        Tags { tags: btf.all_decl_tags().filter(|t| t.text.starts_with(PREFIX)).collect() }
    }

    /// Takes the default of the field with index `component` in the struct `target`.
    pub(super) fn default(
        &mut self,
        target: u32,
        component: usize,
        scope: Scope,
        field: &StructField,
    ) -> Result<Option<i128>, SchemaError> {
        let mut default = None;
        let on_field = |t: &DeclTag| t.target == target && usize::try_from(t.component) == Ok(component);
        for tag in self.tags.extract_if(.., |t| on_field(t)) {
            let Some(text) = tag.text.strip_prefix(DEFAULT) else {
                let place = format!("{scope}.{}", field.name);
                return Err(SchemaError::UnknownTag { place, tag: tag.text.to_owned() });
            };
            if default.is_some() {
                return Err(SchemaError::TwoDefaults { scope, field: field.name.clone() });
            }
            default = Some(parse_default(scope, field, text.trim())?);
        }
        Ok(default)
    }

    /// Takes the queues.
    pub(super) fn queues(&mut self, btf: &Btf) -> Result<Vec<Queue>, SchemaError> {
        let mut queues: Vec<Queue> = Vec::new();
        let on_var = |t: &DeclTag| {
            t.component == -1 && t.text.starts_with(QUEUE) && btf.kind(t.target) == Some(Kind::Var)
        };
        for tag in self.tags.extract_if(.., |t| on_var(t)) {
            let name = btf.name(tag.target).to_owned();
            let order = match tag.text.strip_prefix(QUEUE).unwrap_or_default() {
                "fifo" => QueueOrder::Fifo,
                "vtime" => QueueOrder::Vtime,
                other => return Err(SchemaError::QueueOrder { queue: name, order: other.to_owned() }),
            };
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(SchemaError::QueueName { queue: name });
            }
            if queues.iter().any(|q| q.name == name) {
                return Err(SchemaError::DuplicateQueue { queue: name });
            }
            queues.push(Queue { name, order });
        }
        Ok(queues)
    }

    /// An error if there is a tag that no one took.
    pub(super) fn none_left(&self, btf: &Btf) -> Result<(), SchemaError> {
        let Some(tag) = self.tags.first() else { return Ok(()) };
        let (place, text) = (place(btf, tag), tag.text.to_owned());
        if tag.text.starts_with(DEFAULT) || tag.text.starts_with(QUEUE) {
            return Err(SchemaError::MisplacedTag { place, tag: text });
        }
        Err(SchemaError::UnknownTag { place, tag: text })
    }
}

/// What a tag is on, for messages.
fn place(btf: &Btf, tag: &DeclTag) -> String {
    let name = btf.name(tag.target);
    let what = match btf.kind(tag.target) {
        Some(Kind::Struct) => "struct ",
        Some(Kind::Union) => "union ",
        Some(Kind::Typedef) => "typedef ",
        Some(Kind::Func) => "function ",
        Some(Kind::Var) => "variable ",
        _ => "",
    };
    let member = usize::try_from(tag.component).ok().and_then(|i| btf.members(tag.target).nth(i));
    match (member, tag.component) {
        (Some(member), _) => format!("{what}{name}.{}", member.name),
        (None, -1) => format!("{what}{name}"),
        (None, i) => format!("{what}{name}, parameter {i}"),
    }
}

fn parse_default(scope: Scope, field: &StructField, text: &str) -> Result<i128, SchemaError> {
    let elem = field.ty.innermost();
    let name = || field.name.clone();
    let (bits, signed) = match elem {
        Type::Int { size, signed } | Type::Enum { size, signed } => (size * 8, *signed),
        Type::Bool => (1, false),
        Type::Array { .. } | Type::Struct { .. } => {
            return Err(SchemaError::DefaultOnStruct { scope, field: name() });
        }
    };
    let boolean = *elem == Type::Bool;
    let value = match text {
        "true" if boolean => 1,
        "false" if boolean => 0,
        _ => parse_integer(text).ok_or_else(|| {
            let text = text.to_owned();
            SchemaError::DefaultNotInteger { scope, field: name(), text, boolean }
        })?,
    };
    let range = if signed { -(1i128 << (bits - 1))..1 << (bits - 1) } else { 0..1 << bits };
    if !range.contains(&value) {
        return Err(SchemaError::DefaultTooBig { scope, field: name(), value, ty: elem.to_string() });
    }
    Ok(value)
}

/// A decimal or 0x integer with an optional minus.
fn parse_integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    // `from_str_radix` takes a sign of its own, which would let `--1` and `0x-1` through.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

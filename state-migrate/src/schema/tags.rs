//! The `scx:` declaration tags: defaults, rules, units and queues.

use super::draft::{Draft, FIELD_TAGS, PREFIX};
use super::{Column, MAX_NAME, MAX_QUEUES, Queue, QueueOrder, QueueSpan, SchemaError, Scope};
use crate::btf::{Btf, DeclTag, Kind};
use crate::types::StructField;

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

    /// Takes all tags of the field with index `component` in the struct `target`.
    pub(super) fn column(
        &mut self,
        target: u32,
        component: usize,
        scope: Scope,
        field: StructField,
    ) -> Result<Column, SchemaError> {
        let mut draft = Draft { scope, field: &field, texts: Default::default() };
        let on_field = |t: &DeclTag| t.target == target && usize::try_from(t.component) == Ok(component);
        for tag in self.tags.extract_if(.., |t| on_field(t)) {
            draft.add(tag.text)?;
        }
        let (default, unit, rule) = (draft.default()?, draft.unit()?, draft.rule()?);
        let momentary = draft.momentary();
        Ok(Column { name: field.name, ty: field.ty, default, unit, momentary, rule })
    }

    /// Takes the queues.
    pub(super) fn queues(&mut self, btf: &Btf) -> Result<Vec<Queue>, SchemaError> {
        let mut queues: Vec<Queue> = Vec::new();
        let on_var = |t: &DeclTag| {
            t.component == -1 && t.text.starts_with(QUEUE) && btf.kind(t.target) == Some(Kind::Var)
        };
        for tag in self.tags.extract_if(.., |t| on_var(t)) {
            let name = btf.name(tag.target).to_owned();
            let (order, span) = kind(&name, tag.text.strip_prefix(QUEUE).unwrap_or_default())?;
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(SchemaError::QueueName { queue: name });
            }
            if queues.iter().any(|q| q.name == name) {
                return Err(SchemaError::DuplicateQueue { queue: name });
            }
            queues.push(Queue { name, order, span });
        }
        if queues.len() > MAX_QUEUES {
            return Err(SchemaError::TooManyQueues { count: queues.len() });
        }
        Ok(queues)
    }

    /// An error if there is a tag that no one took.
    pub(super) fn none_left(&self, btf: &Btf) -> Result<(), SchemaError> {
        let Some(tag) = self.tags.first() else { return Ok(()) };
        let (place, text) = (place(btf, tag), tag.text.to_owned());
        let known =
            |name: &str| tag.text.strip_prefix(PREFIX).and_then(|t| t.split('=').next()) == Some(name);
        if tag.text.starts_with(QUEUE) || FIELD_TAGS.into_iter().any(known) {
            return Err(SchemaError::MisplacedTag { place, tag: text });
        }
        Err(SchemaError::UnknownTag { place, tag: text })
    }
}

/// `fifo`, or `vtime,per-cpu`.
fn kind(queue: &str, text: &str) -> Result<(QueueOrder, QueueSpan), SchemaError> {
    let (order, span) = text.split_once(',').map_or((text, None), |(order, span)| (order, Some(span)));
    let order = match order {
        "fifo" => QueueOrder::Fifo,
        "vtime" => QueueOrder::Vtime,
        _ => return Err(SchemaError::QueueOrder { queue: queue.to_owned(), order: order.to_owned() }),
    };
    let found = QueueSpan::ALL.into_iter().find(|s| s.tag() == span);
    let span = found.ok_or_else(|| SchemaError::QueueSpan {
        queue: queue.to_owned(),
        span: span.unwrap_or_default().to_owned(),
    })?;
    Ok((order, span))
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

//! The columns and queues that a policy declares, read from its own BTF.
//!
//! Each scope's columns are the fields of one struct with a fixed name ([`Scope::struct_name`]). A field's tags are its
//! default, its [`Rule`], its unit, and whether it is of a moment:
//!
//! | tag | meaning |
//! | --- | --- |
//! | `scx:from=NAME` | it was called NAME in the predecessor, or is derived from that column |
//! | `scx:scale=A/B+C` | `new = old * A / B + C`; `A`, `A/B`, `A-C` and so on too |
//! | `scx:saturate` | its type may be narrower or of another sign; what does not fit becomes the nearest that does |
//! | `scx:unit=UNIT` | what it counts, compared as text |
//! | `scx:momentary` | it is true only while its policy runs: no snapshot has it |
//! | `scx:convert=PROGRAM` | a conversion of the author's own, in BPF, makes the new value |
//! | `scx:inverse=PROGRAM` | and this one the old value again, for a rollback |
//!
//! The conversions are listed in the BTF by their names, see [`Signature`].
//!
//! Tags may stay in the source for ever: the rule is part of the column's identity, so the next version, which has
//! the same tag, carries the column as it is. Only one that has another rule derives anew.

mod conversions;
mod draft;
mod error;
mod fields;
mod tags;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::conversions::{MAX_ARG, Signature};
pub use self::error::SchemaError;

use self::conversions::Conversions;
use self::fields::Reader;
use self::tags::Tags;
use crate::btf::{Btf, Kind};
use crate::object::{btf_section, policy_name};
use crate::rule::Rule;
use crate::types::Type;
use crate::well_known;

/// The most columns in one scope.
pub const MAX_COLUMNS: usize = 64;
/// The most queues of one policy. One with a span counts once.
pub const MAX_QUEUES: usize = 16;
/// The longest name of a column or queue, in bytes.
pub const MAX_NAME: usize = 63;
/// The longest unit, in bytes.
pub const MAX_UNIT: usize = 31;

/// What a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One record for each task.
    Task,
    /// One record for each cgroup.
    Cgroup,
    /// One record for each CPU.
    Cpu,
    /// One record.
    Global,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 4] = [Scope::Task, Scope::Cgroup, Scope::Cpu, Scope::Global];

    /// The name of the struct that declares the scope's columns.
    pub fn struct_name(self) -> &'static str {
        match self {
            Scope::Task => "policy_task",
            Scope::Cgroup => "policy_cgroup",
            Scope::Cpu => "policy_cpu",
            Scope::Global => "policy_global",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scope::Task => "task",
            Scope::Cgroup => "cgroup",
            Scope::Cpu => "cpu",
            Scope::Global => "global",
        })
    }
}

/// A named, typed field of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// What it is, or each element of an array, in a new record; zero without one. It fits the type.
    pub default: Option<i128>,
    /// What it counts, as declared; compared as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whether it says what is true only now: a snapshot neither saves nor restores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub momentary: bool,
    /// How it takes its value from its predecessor.
    #[serde(default, skip_serializing_if = "Rule::is_default")]
    pub rule: Rule,
}

impl Column {
    /// What it counts: as declared, or as its well-known name says.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref().or_else(|| well_known::find(&self.name).map(|w| w.unit))
    }

    /// Whether its values are times of a clock that starts with the boot: see [`well_known::is_time_stamp`].
    pub fn is_time_stamp(&self) -> bool {
        self.unit().is_some_and(well_known::is_time_stamp)
    }
}

/// In which order a queue hands out its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// As they came.
    Fifo,
    /// By their vtime.
    Vtime,
}

impl fmt::Display for QueueOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            QueueOrder::Fifo => "fifo",
            QueueOrder::Vtime => "vtime",
        })
    }
}

/// What there is one of under a queue's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueSpan {
    /// One, for everyone.
    #[default]
    One,
    /// One for each CPU that there can be.
    Cpu,
    /// One for each last-level cache.
    Llc,
    /// One for each cgroup.
    Cgroup,
}

impl QueueSpan {
    /// All spans.
    pub const ALL: [QueueSpan; 4] = [QueueSpan::One, QueueSpan::Cpu, QueueSpan::Llc, QueueSpan::Cgroup];

    /// Is it the default one?
    pub fn is_one(&self) -> bool {
        *self == QueueSpan::One
    }

    /// What a tag has behind the order; nothing for one.
    pub fn tag(self) -> Option<&'static str> {
        match self {
            QueueSpan::One => None,
            QueueSpan::Cpu => Some("per-cpu"),
            QueueSpan::Llc => Some("per-llc"),
            QueueSpan::Cgroup => Some("per-cgroup"),
        }
    }
}

impl fmt::Display for QueueSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.tag().unwrap_or("one"))
    }
}

/// A DSQ that a policy keeps tasks on, or a family of them. All three together are its identity: two that differ in any
/// are two queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name: that of the variable that declares it.
    pub name: String,
    /// Its order.
    pub order: QueueOrder,
    /// What there is one of.
    #[serde(default, skip_serializing_if = "QueueSpan::is_one")]
    pub span: QueueSpan,
}

impl fmt::Display for Queue {
    /// As the tag has it: `vtime,per-cpu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span.tag() {
            None => self.order.fmt(f),
            Some(span) => f.pad(&format!("{},{span}", self.order)),
        }
    }
}

/// What a policy declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The policy's name, from its `sched_ext_ops`. Versions of one policy share it. A BTF does not hold it, so the caller
    /// fills it in; policies without a name count as versions of one policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// The columns of each scope that the policy has state in, in the order of the struct's fields.
    pub scopes: BTreeMap<Scope, Vec<Column>>,
    /// The queues, in the order of the BTF.
    pub queues: Vec<Queue>,
    /// The structs and unions with a name that columns hold, by name. A policy may reach into one through a pointer to
    /// it, and then CO-RE asks for it by name.
    #[serde(default)]
    pub structs: BTreeMap<String, Type>,
    /// The author's own conversions that columns name, by name.
    #[serde(default)]
    pub conversions: BTreeMap<String, Signature>,
}

impl Schema {
    /// Reads the schema from the BTF of a policy's object.
    pub fn from_btf(btf: &Btf) -> Result<Schema, SchemaError> {
        let mut tags = Tags::collect(btf);
        let mut reader = Reader::new(btf);
        let mut scopes = BTreeMap::new();
        for scope in Scope::ALL {
            let mut ids = btf.ids(Kind::Struct).filter(|&id| btf.name(id) == scope.struct_name());
            let Some(id) = ids.next() else { continue };
            if ids.next().is_some() {
                return Err(SchemaError::DuplicateScope { scope });
            }
            scopes.insert(scope, columns(btf, &mut tags, &mut reader, scope, id)?);
        }
        let queues = tags.queues(btf)?;
        tags.none_left(btf)?;
        let list = Conversions::new(btf);
        let mut conversions = BTreeMap::new();
        for (&scope, columns) in &scopes {
            for column in columns {
                conversions.extend(list.of(&mut reader, scope, column)?);
            }
        }
        Ok(Schema { policy: String::new(), scopes, queues, structs: reader.structs, conversions })
    }

    /// Reads the schema from a policy's BPF object, with the policy's name.
    pub fn from_object(elf: &[u8]) -> Result<Schema, SchemaError> {
        Schema::of_policy(elf, &Btf::parse(btf_section(elf)?)?)
    }

    /// The same of an object whose BTF has been read.
    ///
    /// # Errors
    /// As [`Schema::from_btf`].
    pub fn of_policy(elf: &[u8], btf: &Btf<'_>) -> Result<Schema, SchemaError> {
        Ok(Schema { policy: policy_name(elf, btf).unwrap_or_default(), ..Schema::from_btf(btf)? })
    }
}

fn columns(
    btf: &Btf,
    tags: &mut Tags,
    reader: &mut Reader,
    scope: Scope,
    id: u32,
) -> Result<Vec<Column>, SchemaError> {
    let count = btf.members(id).count();
    if count > MAX_COLUMNS {
        return Err(SchemaError::TooManyColumns { scope, count });
    }
    let mut columns = Vec::with_capacity(count);
    for (i, field) in reader.scope_struct(scope, id)?.into_iter().enumerate() {
        columns.push(tags.column(id, i, scope, field)?);
    }
    Ok(columns)
}

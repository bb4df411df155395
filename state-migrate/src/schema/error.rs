//! Why a policy's BTF is no schema.

use super::{MAX_COLUMNS, MAX_NAME, Scope};
use crate::btf::BtfError;
use crate::object::ObjectError;

/// Why a policy's BTF is no schema. `field` is the path of a field from the scope's struct, as `stats.latency`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say what each is, and the fields are the same throughout
pub enum SchemaError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Btf(#[from] BtfError),

    #[error(
        "`struct {}` is declared more than once with different fields; declare it once, in a header",
        scope.struct_name()
    )]
    DuplicateScope { scope: Scope },
    #[error("`struct {}` has no fields; drop it, or give it the state that each {scope} has", scope.struct_name())]
    EmptyScope { scope: Scope },
    #[error(
        "`struct {}` has {count} fields, at most {MAX_COLUMNS} can be columns; put some together into arrays or structs",
        scope.struct_name()
    )]
    TooManyColumns { scope: Scope, count: usize },
    #[error("{scope}.{field}: the name is longer than {MAX_NAME} bytes; shorten it")]
    NameTooLong { scope: Scope, field: String },
    #[error("{scope}.{field}: a member without a name cannot be found again in the next version; name it")]
    Anonymous { scope: Scope, field: String },
    #[error("{scope}.{field}: there are two fields of that name; the BTF is damaged, build the object anew")]
    DuplicateField { scope: Scope, field: String },

    #[error(
        "{scope}.{field}: a pointer means nothing to the next version; keep an id or an index, \
         and kptrs in a map of the policy's own"
    )]
    Pointer { scope: Scope, field: String },
    #[error("{scope}.{field}: bitfields have no address of their own; use a whole integer, or flags in one")]
    Bitfield { scope: Scope, field: String },
    #[error("{scope}.{field}: BPF has no floating point; use a scaled integer")]
    Float { scope: Scope, field: String },
    #[error(
        "{scope}.{field}: `struct {name}` is handled by the kernel and cannot be in a record; \
         keep it in a map of the policy's own"
    )]
    KernelStruct { scope: Scope, field: String, name: String },
    #[error("{scope}.{field}: unions come as opaque bytes in a later version; use a byte array")]
    Union { scope: Scope, field: String },
    #[error("{scope}.{field}: an array without a length has no place in a fixed record; give it a length")]
    ZeroArray { scope: Scope, field: String },
    #[error("{scope}.{field}: a struct without fields holds nothing; drop the field")]
    EmptyStruct { scope: Scope, field: String },
    #[error("{scope}.{field}: its type is declared but not defined; include the header that defines it")]
    Forward { scope: Scope, field: String },
    #[error("{scope}.{field}: types are nested more than {max} deep, or in a circle; flatten them")]
    TooDeep { scope: Scope, field: String, max: u32 },
    #[error("{scope}.{field}: the structs in the state have more than {max} fields together; use arrays")]
    TooManyFields { scope: Scope, field: String, max: usize },
    #[error("{scope}.{field}: it is larger than {max} bytes; keep it in a map of the policy's own")]
    TooLarge { scope: Scope, field: String, max: u32 },
    #[error("{scope}.{field}: integers of {size} bytes cannot be carried; use one of 1, 2, 4 or 8")]
    IntSize { scope: Scope, field: String, size: u32 },
    #[error("{scope}.{field}: it is not aligned to its size; drop the `packed` attribute")]
    Packed { scope: Scope, field: String },
    #[error(
        "{scope}.{field}: BTF gives it no type that state can have; the BTF is damaged, build the object anew"
    )]
    Malformed { scope: Scope, field: String },

    #[error("{scope}.{field}: default `{text}` is not an integer; write a literal as 20, -1 or 0x14{}", bool_hint(*.boolean))]
    DefaultNotInteger { scope: Scope, field: String, text: String, boolean: bool },
    #[error(
        "{scope}.{field}: default {value} does not fit into `{ty}`; take a smaller default or a larger type"
    )]
    DefaultTooBig { scope: Scope, field: String, value: i128, ty: String },
    #[error(
        "{scope}.{field}: a struct starts as zero and takes no default; make its fields columns, or drop the tag"
    )]
    DefaultOnStruct { scope: Scope, field: String },
    #[error("{scope}.{field}: it has more than one default; keep one")]
    TwoDefaults { scope: Scope, field: String },
    #[error(
        "{place}: the tag `{tag}` is unknown; fields take `scx:default=<integer>`, variables `scx:queue=fifo` or `scx:queue=vtime`"
    )]
    UnknownTag { place: String, tag: String },
    #[error(
        "{place}: the tag `{tag}` has no meaning here; `scx:default` goes on a field of a policy struct itself, `scx:queue` on a global variable"
    )]
    MisplacedTag { place: String, tag: String },

    #[error("queue `{queue}`: order `{order}` is unknown; use `scx:queue=fifo` or `scx:queue=vtime`")]
    QueueOrder { queue: String, order: String },
    #[error("queue `{queue}` is declared twice; a queue is one variable with one tag, rename or drop one")]
    DuplicateQueue { queue: String },
    #[error("queue `{queue}`: the name is empty or longer than {MAX_NAME} bytes; rename the variable")]
    QueueName { queue: String },
}

fn bool_hint(boolean: bool) -> &'static str {
    if boolean { ", or true or false" } else { "" }
}

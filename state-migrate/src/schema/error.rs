//! Why a policy's BTF is no schema.

use super::{MAX_ARG, MAX_COLUMNS, MAX_NAME, MAX_QUEUES, MAX_UNIT, Scope};
use crate::btf::BtfError;
use crate::object::ObjectError;
use crate::types::Type;

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
        "{scope}.{field}: `struct {name}` is handled by the kernel and cannot be in a record{}; \
         keep it in a map of the policy's own",
        if name == "bpf_spin_lock" { ", which has the one lock that the kernel allows in it already" } else { "" }
    )]
    KernelStruct { scope: Scope, field: String, name: String },
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
        "{scope}.{field}: a struct or union starts as zero and takes no default; make its fields columns, or drop the tag"
    )]
    DefaultOnStruct { scope: Scope, field: String },
    #[error("{scope}.{field}: it has the tag `scx:{tag}` more than once; keep one")]
    TwoTags { scope: Scope, field: String, tag: &'static str },
    #[error(
        "{scope}.{field}: scale `{text}` is not `A`, `A/B` or `A/B+C`, with integers, A not 0, B above 0 and both at \
         most 2^31; write it as 1000, 1/1000 or 9/5+32"
    )]
    BadScale { scope: Scope, field: String, text: String },
    #[error(
        "{scope}.{field}: `scx:scale` rescales integers and arrays of them, not `{ty}`; write a conversion \
         (`scx:convert`), or drop the tag"
    )]
    ScaleOnOther { scope: Scope, field: String, ty: String },
    #[error("{scope}.{field}: `scx:{tag}={text}` is no name in C of at most {MAX_NAME} bytes; correct it")]
    BadName { scope: Scope, field: String, tag: &'static str, text: String },
    #[error(
        "{scope}.{field}: unit `{text}` is empty, longer than {MAX_UNIT} bytes or has other than printable ASCII \
         characters; write it as ns, 1/s or 0..1024@32ms"
    )]
    BadUnit { scope: Scope, field: String, text: String },
    #[error("{scope}.{field}: `scx:from` names the field itself, which is what it has without; drop the tag")]
    FromItself { scope: Scope, field: String },
    #[error("{scope}.{field}: `scx:{tag}` takes no value; write it alone")]
    TagValue { scope: Scope, field: String, tag: &'static str },
    #[error(
        "{scope}.{field}: `scx:{one}` and `scx:{other}` exclude each other, the conversion does it all; drop one"
    )]
    Contradiction { scope: Scope, field: String, one: &'static str, other: &'static str },
    #[error(
        "{scope}.{field}: `scx:inverse` turns round an `scx:convert`, and there is none; add it, or drop this tag"
    )]
    InverseAlone { scope: Scope, field: String },
    #[error(
        "{scope}.{field}: `scx:{tag}={program}` names no conversion of this policy; define SCXU_CONVERSION({program}, ...) and \
         list it in SCXU_CONVERSIONS()"
    )]
    NoConversion { scope: Scope, field: String, tag: &'static str, program: String },
    #[error(
        "{scope}.{field}: a value of {size} bytes is more than a conversion can take or give, which is {MAX_ARG}; split the \
         column, or give it a new name to begin with its default"
    )]
    ConversionTooLarge { scope: Scope, field: String, size: u32 },
    #[error(
        "{scope}.{field}: the conversion `{program}` {does} `{is}`, and {other} is `{expected}`; make the types the same"
    )]
    ConversionType {
        scope: Scope,
        field: String,
        program: String,
        does: &'static str,
        is: Box<Type>,
        other: String,
        expected: Box<Type>,
    },
    #[error(
        "{place}: the tag `{tag}` is unknown; fields take `scx:default`, `scx:from`, `scx:scale`, `scx:saturate`, \
         `scx:unit`, `scx:momentary`, `scx:convert` and `scx:inverse`, variables `scx:queue=fifo` or `scx:queue=vtime`"
    )]
    UnknownTag { place: String, tag: String },
    #[error(
        "{place}: the tag `{tag}` has no meaning here; `scx:queue` goes on a global variable, all others on a field of a \
         policy struct itself"
    )]
    MisplacedTag { place: String, tag: String },

    #[error("queue `{queue}`: order `{order}` is unknown; use `scx:queue=fifo` or `scx:queue=vtime`")]
    QueueOrder { queue: String, order: String },
    #[error(
        "queue `{queue}`: span `{span}` is unknown; use per-cpu, per-llc or per-cgroup behind the order, as in \
         `scx:queue=fifo,per-cpu`, or nothing for a single queue"
    )]
    QueueSpan { queue: String, span: String },
    #[error(
        "there are {count} queues, at most {MAX_QUEUES} can be; let one with a span (per-cpu, per-llc, per-cgroup), which \
         counts once, take the place of several"
    )]
    TooManyQueues { count: usize },
    #[error("queue `{queue}` is declared twice; a queue is one variable with one tag, rename or drop one")]
    DuplicateQueue { queue: String },
    #[error("queue `{queue}`: the name is empty or longer than {MAX_NAME} bytes; rename the variable")]
    QueueName { queue: String },
}

fn bool_hint(boolean: bool) -> &'static str {
    if boolean { ", or true or false" } else { "" }
}

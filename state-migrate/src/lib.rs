//! CO-RE for scheduler state: what carries a policy's state from one version to the next.
//!
//! A policy declares its state as ordinary C structs, one per [`Scope`]; each field is a *column*. The pieces,
//! in the order in which a swap uses them:
//!
//! 1. [`Schema`]: the columns and queues that a policy declares, read from the BTF of its object.
//! 2. [`Layout`]: where every live column stands in the host's fixed-size records.
//! 3. [`plan()`]: which columns a swap carries, converts, defaults and drops, the steps that do it to each record, and
//!    the layout after it; [`plan_back`]: the same for a rollback; [`apply()`]: the meaning of the steps;
//!    [`compile()`]: the steps as BPF instructions.
//! 4. [`augment()`]: the kernel's BTF with the policy's structs appended as the layout has them, for libbpf's CO-RE
//!    to rewrite the policy's accesses by.
//!
//! Nothing here talks to a kernel: bytes go in, bytes and values come out.

pub mod augment;
pub mod btf;
pub mod compile;
mod convert;
pub mod layout;
pub mod object;
pub mod plan;
pub mod rule;
pub mod schema;
pub mod snapshot;
pub mod step;
pub mod types;
pub mod well_known;

pub use augment::{AugmentError, augment, malformed_kfuncs};
pub use btf::{Btf, BtfError, Kind};
pub use compile::compile;
pub use layout::{HEADER, Layout, LayoutError, MAX_RECORD, Placed, ScopeLayout, Source};
pub use object::ObjectError;
pub use plan::{
    Capacity, ColumnPlan, Fate, Plan, PlanError, PlanReport, QueueRow, Refusal, Retained, Row, check, plan,
    plan_anew, plan_back, plan_report, plan_report_anew, queue_rows,
};
pub use rule::{Conversion, Rule, Scale};
pub use schema::{Column, MAX_ARG, Queue, QueueOrder, QueueSpan, Schema, SchemaError, Scope, Signature};
pub use snapshot::{Snapshot, SnapshotError};
pub use step::{ApplyError, Call, Linear, MAX_STEPS, Number, Repeat, Step, apply, apply_with};
pub use types::{StructField, Type, View};

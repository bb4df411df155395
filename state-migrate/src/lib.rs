//! CO-RE for scheduler state: what carries a policy's state from one version to the next.
//!
//! A policy declares its state as ordinary C structs, one per [`Scope`]; each field is a *column*. The pieces,
//! in the order in which a swap uses them:
//!
//! 1. [`Schema`]: the columns and queues that a policy declares, read from the BTF of its object.
//! 2. [`Layout`]: where every live column stands in the host's fixed-size records.
//! 3. [`plan()`]: which columns a swap carries, defaults and drops, and the layout after it.
//! 4. [`augment()`]: the kernel's BTF with the policy's structs appended as the layout has them, for libbpf's CO-RE
//!    to rewrite the policy's accesses by.
//!
//! Nothing here talks to a kernel: bytes go in, bytes and values come out.

pub mod augment;
pub mod btf;
pub mod layout;
pub mod object;
pub mod plan;
pub mod schema;
pub mod snapshot;
pub mod types;

pub use augment::{AugmentError, augment, malformed_kfuncs};
pub use btf::{Btf, BtfError, Kind};
pub use layout::{HEADER, Layout, LayoutError, MAX_RECORD, Placed, ScopeLayout};
pub use object::ObjectError;
pub use plan::{ColumnPlan, Fate, MAX_STEPS, Plan, PlanError, Retained, Step, plan};
pub use schema::{Column, Queue, QueueOrder, Schema, SchemaError, Scope};
pub use snapshot::{Snapshot, SnapshotError};
pub use types::{StructField, Type};

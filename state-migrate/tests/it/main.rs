//! Tests of the whole crate through its public API. They need neither a compiler nor a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod augment;
mod btf;
mod builder;
mod corpus;
mod plan;
mod properties;
mod robustness;
mod schema;
mod snapshot;
mod snapshot_damage;
mod snapshot_file;
mod snapshot_restore;

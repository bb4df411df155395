//! Tests of the whole crate through its public API. They need neither a compiler nor a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod augment;
mod btf;
mod builder;
mod changes;
mod corpus;
mod evolve;
mod model;
mod plan;
mod properties;
mod robustness;
mod rules;
mod schema;
mod snapshot;
mod snapshot_convert;
mod snapshot_damage;
mod snapshot_file;
mod snapshot_restore;
mod steps;

/// Settings of a property test: this many cases, or as many as the environment says.
fn cases(default: u32) -> proptest::prelude::ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

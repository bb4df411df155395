//! `scx-upgrade check`: what a swap from one policy to another would do, between two binaries, on any machine.

use std::path::Path;

use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::obstacles::Obstacles;
use scx_upgrade_engine::record_sizes;

use crate::failure::Failure;
use crate::output::Output;
use crate::verbs::plan;

pub fn check(old: &Path, new: &Path, out: Output) -> Result<(), Failure> {
    let old = Policy::from_binary(old)?.schema()?;
    let policy = Policy::from_binary(new)?;
    let (new, obstacles) = (policy.schema()?, Obstacles::of(&policy)?);
    plan::show(&state_migrate::check(&old, &new, &record_sizes()), &obstacles, None, out)
}

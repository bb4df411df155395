//! `scx-upgrade rollback`: make the policy before it run again.

use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::swap;

use crate::failure::Failure;
use crate::output;

pub fn rollback(pins: &Pins, allow_reattach: bool, json: bool) -> Result<(), Failure> {
    output::report(&swap::rollback(pins, allow_reattach)?, json);
    Ok(())
}

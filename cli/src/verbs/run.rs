//! `scx-upgrade run`: start a policy where none is running.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

use crate::args::PolicyArgs;
use crate::failure::Failure;
use crate::launch;
use crate::output;

pub fn run(pins: &Pins, policy: &PolicyArgs, json: bool) -> Result<(), Failure> {
    match Host::running(pins) {
        Err(Error::NothingRunning | Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {
        }
        Ok(_) => {
            return Err(Failure::new(1, "a policy is running already: replace it with `scx-upgrade swap`"));
        }
        Err(other) => return Err(other.into()),
    }
    output::report(&launch::launch(policy, &[])?, json);
    Ok(())
}

//! `scx-upgrade swap`: replace the running policy, in place.

use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

use crate::args::PolicyArgs;
use crate::failure::Failure;
use crate::launch;
use crate::output;

pub fn swap(pins: &Pins, policy: &PolicyArgs, json: bool) -> Result<(), Failure> {
    // Without one, taking over would mean starting a host, which is what `run` is for.
    Host::running(pins)?;
    output::report(&launch::launch(policy)?, json);
    Ok(())
}

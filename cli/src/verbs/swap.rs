//! `scx-upgrade swap`: replace the running policy, in place, or by a reattach where that is needed and allowed.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

use crate::args::SwapArgs;
use crate::failure::Failure;
use crate::launch;
use crate::output;

pub fn swap(pins: &Pins, args: &SwapArgs, json: bool) -> Result<(), Failure> {
    let allowed = args.reattach.allow_reattach;
    match Host::running(pins) {
        Ok(_) | Err(Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {}
        Err(Error::OtherHost { .. }) if allowed => {}
        // Without one, taking over would mean starting a host, which is what `run` is for.
        Err(other) => return Err(other.into()),
    }
    let own: &[&str] = if allowed { &["--allow-reattach"] } else { &[] };
    output::report(&launch::launch(&args.policy, own)?, json);
    Ok(())
}

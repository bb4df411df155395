//! `scx-upgrade run`: start a policy where none is running.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::launch;
use crate::output;

pub fn run(pins: &Pins, args: &RunArgs, json: bool) -> Result<(), Failure> {
    match Host::running(pins) {
        Err(Error::NothingRunning | Error::Ejected { .. } | Error::Detached { .. } | Error::HalfReplaced) => {
        }
        Ok(_) => {
            return Err(Failure::new(1, "a policy is running already: replace it with `scx-upgrade swap`"));
        }
        Err(other) => return Err(other.into()),
    }
    // Where it is given from, not where the policy's process looks.
    let file = args.restore.as_ref().map(|file| std::path::absolute(file).unwrap_or(file.clone()));
    let file = file.map(|file| file.to_string_lossy().into_owned());
    let own: Vec<&str> = file.iter().flat_map(|file| ["--restore", file]).collect();
    output::report(&launch::launch(&args.policy, &own)?, json);
    Ok(())
}

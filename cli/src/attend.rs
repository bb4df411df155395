//! The process of the policy that runs, started again where it has ended: the policy runs on without it, its statistics do not.

use scx_upgrade_sdk::Error;
use scx_upgrade_sdk::attend;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::registry::SlotInfo;

use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;

/// Start it where it has ended; its id if so. `timeout`: how long to wait for another command, seconds.
///
/// # Errors
/// Its binary is not known, not there, another by now, or may not run here; or it does not start.
pub fn where_it_ended(pins: &Pins, timeout: u64) -> Result<Option<u32>, Failure> {
    let host = Host::running(pins)?;
    match host.registry.slot(host.data.active().slot) {
        Some(slot) if !attend::is_alive(slot) => start(slot, timeout).map(Some),
        _ => Ok(None),
    }
}

fn start(slot: &SlotInfo, timeout: u64) -> Result<u32, Failure> {
    let not_attended = |why: String| Failure::from(Error::NotAttended { why });
    let known = slot.binary.as_ref().ok_or_else(|| not_attended("its binary is not known".to_owned()))?;
    let binary = PolicyBinary::open(&known.path)?;
    // The one that is open, whatever comes to its path now.
    if binary.identity().sha256 != known.sha256 {
        return Err(not_attended(format!("{} is another file by now", known.path.display())));
    }
    launch::attend(&binary, &slot.own_args(), timeout)
}

/// After a command that made an earlier policy run again, in this generation: start its process, and warn where that cannot be
/// done. Where another command was faster there is nothing to do.
pub fn after(pins: &Pins, generation: u32, timeout: u64) {
    let goes_on = || Host::running(pins).is_ok_and(|host| host.data.active().generation == generation);
    match where_it_ended(pins, timeout) {
        Ok(None) => {}
        Ok(Some(pid)) => log::info!("its process had ended: {pid} was started in its place"),
        Err(failure) if goes_on() => {
            log::warn!("the policy runs without a process of its own: {}", failure.message);
        }
        Err(failure) => log::debug!("{}", failure.message),
    }
}

//! The frontend of the policy that runs, started again where it has ended: the policy runs on without it, its statistics do not.

use scx_upgrade_engine::Error;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::SlotInfo;
use scx_upgrade_engine::os::identity;
use scx_upgrade_engine::transition::frontend;
use scx_upgrade_engine::transition::frontend::Launch;

use crate::binary::PolicyBinary;
use crate::failure::Failure;

/// Starts it where it has ended; its pid if so.
///
/// # Errors
/// Its binary is not known, not there, another by now, or may not run here; or it does not start.
pub fn where_it_ended(pins: &Pins) -> Result<Option<u32>, Failure> {
    let host = Host::running(pins)?;
    match host.active_policy() {
        Some(slot) if !identity::is_alive(slot.pid) => start(pins, slot).map(Some),
        _ => Ok(None),
    }
}

fn start(pins: &Pins, slot: &SlotInfo) -> Result<u32, Failure> {
    let refused = |why: String| Failure::from(Error::NoFrontend { why });
    let known = slot.binary.as_ref().ok_or_else(|| refused("its binary is not known".to_owned()))?;
    let binary = PolicyBinary::open(&known.path)?;
    // The one that is open, whatever comes to its path now.
    if binary.identity().sha256 != known.sha256 {
        return Err(refused(format!("{} is another file by now", known.path.display())));
    }
    let policy = binary.policy()?.from(binary.identity().clone());
    let program = binary.program();
    let launch = Launch { program: &program, path: &known.path, args: slot.own_args(), unit: true };
    Ok(frontend::restart(pins, &policy, launch)?)
}

/// After a command that made an earlier policy run again, in this generation: starts its frontend, and warns where that cannot be
/// done. Where another command was faster there is nothing to do.
pub fn after(pins: &Pins, generation: u32) {
    let goes_on = || Host::running(pins).is_ok_and(|host| host.data.active().generation == generation);
    match where_it_ended(pins) {
        Ok(None) => {}
        Ok(Some(pid)) => log::info!("its frontend had ended: {pid} was started in its place"),
        Err(failure) if goes_on() => {
            log::warn!("the policy runs without a frontend: {}", failure.message);
        }
        Err(failure) => log::debug!("{}", failure.message),
    }
}

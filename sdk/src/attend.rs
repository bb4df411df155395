//! A policy needs no process to run: its BPF half is the kernel's. But who wants its statistics does, so where its process has
//! ended another one of the same binary can take the place: it loads nothing, and finds its maps through the programs in the
//! policy's slot.

use std::collections::BTreeSet;
use std::fs;

use libbpf_rs::MapCore;
use libbpf_rs::MapHandle;

use crate::counters;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::identity;
use crate::load;
use crate::pins::Pins;
use crate::policy::Policy;
use crate::registry::SlotInfo;
use crate::run::Running;

/// Is the process alive that belongs to the policy in a slot? One that nobody has waited for yet is not.
pub fn is_alive(slot: &SlotInfo) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", slot.pid)).unwrap_or_default();
    // Behind the name, which may have brackets of its own: proc_pid_stat(5).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZXx".contains(state))
}

/// Make this process that of the policy that runs, which must be of the same binary.
///
/// # Errors
/// [`Error::NotAttended`], or nothing runs.
pub(crate) fn attend(pins: &Pins, policy: &Policy) -> Result<(Host, Running)> {
    let _lock = pins.lock()?;
    let mut host = Host::running(pins)?;
    let refused = |why: String| Error::NotAttended { why };
    if host.registry.pending.is_some() {
        return Err(refused(
            "a command was cut off, and the next one is to finish or undo it first".to_string(),
        ));
    }
    let slot = host.data.active().slot;
    let inspected = policy.inspect()?;
    let info = host.registry.slots.get_mut(usize::from(slot)).and_then(Option::as_mut);
    let info = info.ok_or_else(|| refused("no policy runs".to_string()))?;
    let same =
        info.binary.as_ref().zip(policy.binary()).is_some_and(|(runs, this)| runs.sha256 == this.sha256);
    if !same {
        return Err(refused(format!("{}, which runs, is not from this binary", info.title())));
    }
    if is_alive(info) {
        return Err(refused(format!("process {} does already", info.pid)));
    }
    info.pid = identity::pid_in_proc();
    let places = load::places(&host.registry.layout, slot);
    let globals: BTreeSet<u32> = host.program_ids(slot).flat_map(counters::maps_of).collect();
    let globals = globals.into_iter().filter_map(|id| MapHandle::from_map_id(id).ok());
    let mut maps: Vec<_> = globals.map(|map| (map.name().to_string_lossy().into_owned(), map)).collect();
    // Their names are longer than those that the kernel keeps.
    for (name, map) in host.shared() {
        maps.extend(MapHandle::try_from(map).ok().map(|map| (name.to_string(), map)));
    }
    host.save()?;
    Ok((host, Running { maps, variables: inspected.variables, places }))
}

//! What a rollback ([`rollback`]) or a swap ([`swap`]) would do. A preview changes nothing.

use crate::candidate::load;
use crate::candidate::policy::Policy;
use crate::host::registry::Registry;
use crate::transition::plan;
use crate::transition::reattach::other_version::Old;
use serde::Deserialize;
use serde::Serialize;
use state_migrate::Layout;
use state_migrate::QueueRow;
use state_migrate::Row;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::pins::Pins;
use crate::host::registry::RollbackTarget;
use crate::host::registry::SlotInfo;
use crate::kernel::btf::KernelBtf;
use crate::kernel::sysfs;
use crate::transition::quiesce;
use crate::transition::quiesce::QuiescedRollback;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollbackPreview {
    /// What runs, as `name version`.
    pub from: Option<String>,
    /// What would run, as `name version`.
    pub to: String,
    /// The generation that is gone back to.
    pub back_to: u32,
    /// The number that the rollback would have as a generation.
    pub generation: u32,
    /// What would become of columns.
    pub columns: Vec<Row>,
    /// What would become of queues.
    pub queues: Vec<QueueRow>,
    /// Would no policy run for as long as a sweep takes?
    pub held: bool,
    /// Why it would take a reattach, if so.
    pub reattach: Option<String>,
    /// Does the kernel run the host? As it was when all of this was found out.
    #[serde(default)]
    pub attached: bool,
}

/// What a rollback would do.
///
/// # Errors
/// As a rollback, as far as can be known without doing it.
pub fn rollback(pins: &Pins, aim: RollbackTarget) -> Result<RollbackPreview> {
    let host = match Host::running(pins) {
        // What a rollback would attach again.
        Err(Error::Ejected { .. } | Error::Detached { .. }) if sysfs::state() == "disabled" => {
            Host::pinned(pins)?
        }
        other => other?,
    };
    let active = host.data.active();
    let target = plan::target(&host.registry, active.slot, aim)?.clone();
    let info = host.registry.slot(target.slot);
    let (terms, asks) = (&host.registry.terms, info.map(SlotInfo::asks).unwrap_or_default());
    let reattach = match host.attached {
        true if terms.satisfies(&asks) => None,
        true => Some(terms.why_not(&asks, &KernelBtf::read()?)),
        false => Some("the kernel took the host off, so it is attached again anyway".to_string()),
    };
    let queues = host.registry.queue_rows(active.slot, info.map_or(&[][..], |s| s.schema.queues.as_slice()));
    let mut registry = host.registry.clone();
    let QuiescedRollback { plan, hold } =
        quiesce::plan_back(&mut registry, active.slot, target.slot, reattach.is_none() && host.attached)?;
    Ok(RollbackPreview {
        from: host.registry.slot(active.slot).map(SlotInfo::title),
        to: target.title(),
        back_to: target.number,
        generation: active.generation + 1,
        columns: plan.rows(),
        queues,
        held: hold.is_some(),
        reattach,
        attached: host.attached,
    })
}

/// What a swap to a policy would be, found out without changing anything.
#[derive(Debug)]
pub struct SwapPreview {
    /// The columns that are there. The new policy's slot is free in it.
    pub layout: Layout,
    /// The slot that runs.
    pub running: u8,
    /// The slot that the new policy would get.
    pub slot: u8,
    /// What becomes of queues.
    pub queues: Vec<QueueRow>,
    /// Why it would take a reattach, if so.
    pub reattach: Option<String>,
    /// Does the kernel run the host? As it was when all of this was found out.
    pub attached: bool,
    /// What runs, as `name version`.
    pub from: Option<String>,
    /// The number that the generation would have.
    pub generation: u32,
    /// The policy that would have to go for the new one, as `name version`.
    pub evicts: Option<String>,
}

/// What a swap to `policy` would be; where nothing was to be carried, if not `carry`.
///
/// # Errors
/// Nothing runs, or the policy cannot be read.
pub fn swap(pins: &Pins, policy: &Policy, carry: bool) -> Result<SwapPreview> {
    let wanted = policy.schema()?.queues;
    let host = match Host::running(pins) {
        // What a swap would attach again.
        Err(Error::Ejected { .. } | Error::Detached { .. }) if sysfs::state() == "disabled" => {
            Host::pinned(pins)?
        }
        Err(Error::OtherHost { ours, theirs }) => {
            let old = Old::read(pins)?;
            let (slot, layout) = old.room();
            let why =
                format!("the host that runs is of version {theirs}, this program brings version {ours}");
            let running = old.active.slot;
            let queues = Registry::new().queue_rows(running, &wanted);
            let (from, generation) = (old.running(), old.active.generation + 1);
            let reattach = Some(why);
            let (attached, evicts) = (sysfs::state() == "enabled", None);
            return Ok(SwapPreview {
                layout,
                running,
                slot,
                queues,
                reattach,
                attached,
                from,
                generation,
                evicts,
            });
        }
        other => other?,
    };
    let active = host.data.active();
    let running = active.slot;
    let slot = host.registry.choose_slot(running);
    let named = |slot| host.registry.slot(slot).map(SlotInfo::title);
    let (from, evicts) = (named(running), named(slot));
    let mut registry = host.registry.clone();
    registry.evict(slot);
    let queues = match carry {
        true => registry.queue_rows(running, &wanted),
        false => registry.queue_rows_anew(running, &wanted),
    };
    let kernel = KernelBtf::read()?;
    let (terms, asks) = (&host.registry.terms, load::asks_of(policy, &kernel)?);
    let reattach = match host.attached {
        true => (!terms.satisfies(&asks)).then(|| terms.why_not(&asks, &kernel)),
        false => Some("the kernel took the host off, so it is attached again anyway".to_string()),
    };
    let (layout, generation, attached) = (registry.layout, active.generation + 1, host.attached);
    Ok(SwapPreview { layout, running, slot, queues, reattach, attached, from, generation, evicts })
}

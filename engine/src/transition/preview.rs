//! What a rollback would do, found out without changing anything. Of a swap that is [`crate::transition::reattach::prospect`].

use serde::Deserialize;
use serde::Serialize;
use state_migrate::QueueRow;
use state_migrate::Row;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::pins::Pins;
use crate::host::registry::SlotInfo;
use crate::kernel::btf::KernelBtf;
use crate::kernel::sysfs;
use crate::transition::quiesce;
use crate::transition::quiesce::Back;
use crate::transition::swap;
use crate::transition::swap::Aim;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackProspect {
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
pub fn rollback(pins: &Pins, aim: Aim) -> Result<BackProspect> {
    let host = match Host::running(pins) {
        // What a rollback would attach again.
        Err(Error::Ejected { .. } | Error::Detached { .. }) if sysfs::state() == "disabled" => {
            Host::pinned(pins)?
        }
        other => other?,
    };
    let active = host.data.active();
    let target = swap::target(&host.registry, active.slot, aim)?.clone();
    let info = host.registry.slot(target.slot);
    let (terms, asks) = (&host.registry.terms, info.map(SlotInfo::asks).unwrap_or_default());
    let reattach = match host.attached {
        true if terms.suit(&asks) => None,
        true => Some(terms.why_not(&asks, &KernelBtf::read()?)),
        false => Some("the kernel took the host off, so it is attached again anyway".to_string()),
    };
    let queues = host.registry.queue_rows(active.slot, info.map_or(&[][..], |s| s.schema.queues.as_slice()));
    let mut books = host.registry.clone();
    let Back { plan, hold } =
        quiesce::plan_back(&mut books, active.slot, target.slot, reattach.is_none() && host.attached)?;
    Ok(BackProspect {
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

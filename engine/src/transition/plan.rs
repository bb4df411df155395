//! Steps 1 and 2 of a swap: what is read of the policy, and what becomes of each column.

use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::loaded::Loaded;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::Registry;
use crate::host::registry::RollbackTarget;
use crate::host::registry::SlotInfo;
use crate::host::scopes::SCOPES;
use crate::host::scopes::ScopeParts;
use crate::os::clock::unix_time;
use state_migrate::Plan;

/// Say which step begins.
pub(crate) fn log_step(step: &str) {
    log::info!("step: {step}");
}

/// Plan, and take the plan's layout into the registry.
pub(crate) fn plan(
    registry: &mut Registry,
    inspected: &Inspected,
    running: Option<u8>,
    slot: u8,
    carry: bool,
) -> Result<Plan> {
    let plan_it = if carry { state_migrate::plan } else { state_migrate::plan_anew };
    let plan = plan_it(&registry.layout, running.map(u32::from), &inspected.schema, u32::from(slot))?;
    registry.layout = plan.layout.clone();
    Ok(plan)
}

/// Enter the loaded policy and the generation to come into the registry.
pub(crate) fn record_load<O>(
    registry: &mut Registry,
    policy: &Policy,
    inspected: &Inspected,
    loaded: &Loaded<O>,
    kind: Kind,
    slot: u8,
    number: u32,
) -> Generation {
    let load = loaded.load;
    registry.loads = load;
    registry.slots[usize::from(slot)] = Some(SlotInfo {
        policy: loaded.ops.name.clone(),
        version: policy.version().to_string(),
        load,
        schema: inspected.schema.clone(),
        ops: loaded.ops.programs.keys().cloned().collect(),
        lacks: loaded.lacks,
        flags: loaded.asks.flags,
        pid: policy.frontend_pid(),
        args: policy.command_line(),
        binary: policy.binary().cloned(),
    });
    Generation {
        number,
        kind,
        slot,
        load,
        policy: loaded.ops.name.clone(),
        version: policy.version().to_string(),
        unix_time: unix_time(),
    }
}

/// The scopes to sweep: none, if the plan changes no record; else all. A record of a scope that the plan has no steps for
/// is brought up to date as well: one that nobody touches for as many epochs as plans are kept would be taken for one whose
/// plans are gone.
pub(crate) fn scopes_to_sweep(plan: &Plan) -> Vec<&'static ScopeParts> {
    if plan.steps.values().all(Vec::is_empty) { Vec::new() } else { SCOPES.iter().collect() }
}

/// The slot whose policy's own programs must sweep, because the plan calls its conversions.
pub(crate) fn caller(plan: &Plan) -> Option<u8> {
    plan.caller().and_then(|slot| u8::try_from(slot).ok())
}

/// The generation whose policy is aimed at.
pub(crate) fn target(registry: &Registry, active: u8, aim: RollbackTarget) -> Result<&Generation> {
    let none = |why: &str| Error::NoRollback { why: why.to_string() };
    match aim {
        RollbackTarget::Generation(number) => registry.rollback_target_to(active, number),
        RollbackTarget::Before => registry.rollback_target(active).ok_or_else(|| {
            none("no earlier policy is loaded (this is the first since the host was started)")
        }),
        RollbackTarget::Same => registry
            .latest_in(active)
            .ok_or_else(|| none("the registry does not say which policy ran before")),
    }
}

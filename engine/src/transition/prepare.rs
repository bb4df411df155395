//! Step 4: everything that the new policy needs is in place, and nothing that the old one uses has changed.

use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::compiled_sweep::Compiled;
use crate::host::loaded::Loaded;
use crate::host::registry::QueueInfo;
use crate::host::registry::Registry;
use crate::host::scopes::SCOPES;
use crate::host::steps;
use crate::host::worker_pool;
use crate::kernel::sysfs;
use crate::os::priority;
use crate::transition::commit::warm_up_commit;
use crate::transition::recover;
use state_migrate::Plan;

/// Step 4. All that the new policy needs is in place after it, and nothing that the old one uses has changed.
pub(crate) fn prepare(
    host: &mut Host,
    registry: Registry,
    plan: &Plan,
    loaded: &Loaded,
    after: Active,
    new_queues: &[QueueInfo],
) -> Result<()> {
    host.registry = registry;
    host.save()?;
    let prepared = fill(host, plan, loaded, after, new_queues);
    if prepared.is_err() {
        recover::abandon(host, after.slot)?;
    }
    prepared
}

fn fill(host: &Host, plan: &Plan, loaded: &Loaded, after: Active, new_queues: &[QueueInfo]) -> Result<()> {
    host.create_queues(new_queues)?;
    host.fill(after.slot, loaded)?;
    set_plan(host, plan, after.epoch)?;
    for scope in &SCOPES {
        host.data.set_image(scope, &scope.image_of(&plan.layout));
    }
    warm_up_commit(host);
    Ok(())
}

/// Hand the plan of `epoch` to the host. Before the image: a record that is made from a half-written image has the
/// older stamp, and gets the plan all the same.
pub(crate) fn set_plan(host: &Host, plan: &Plan, epoch: u32) -> Result<()> {
    for scope in &SCOPES {
        host.data.set_plan(scope, epoch, &steps::of(plan, scope.scope, &host.registry)?);
    }
    Ok(())
}

/// The plan in instructions, for the sweep of many tasks. A kernel that does not take it costs time, nothing else.
pub(crate) fn compile(host: &Host, plan: &Plan) -> Option<Compiled> {
    if sysfs::tasks() < worker_pool::MANY {
        return None;
    }
    priority::lowered(|| Compiled::load(plan, &host.shared())).unwrap_or_else(|e| {
        log::warn!("the sweep takes longer: {e}");
        None
    })
}

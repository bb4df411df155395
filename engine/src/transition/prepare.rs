//! Step 4: everything that the new policy needs is in place, and nothing that the old one uses has changed.

use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::loaded::Loaded;
use crate::host::registry::QueueInfo;
use crate::host::registry::Registry;
use crate::host::scopes::SCOPES;
use crate::host::steps;
use crate::transition::commit::warm_up_commit;
use crate::transition::kernel::Kernel;
use crate::transition::recover;
use state_migrate::Plan;

/// Step 4. All that the new policy needs is in place after it, and nothing that the old one uses has changed.
pub(crate) fn prepare<K: Kernel>(
    host: &mut Host<K>,
    registry: Registry,
    plan: &Plan,
    loaded: &Loaded<K::Object>,
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

fn fill<K: Kernel>(
    host: &Host<K>,
    plan: &Plan,
    loaded: &Loaded<K::Object>,
    after: Active,
    new_queues: &[QueueInfo],
) -> Result<()> {
    host.create_queues(new_queues)?;
    host.fill(after.slot, loaded)?;
    set_plan(host, plan, after.epoch)?;
    for scope in &SCOPES {
        host.data.set_image(scope, &scope.image_of(&plan.layout));
    }
    warm_up_commit(host);
    Ok(())
}

/// Hands the plan of `epoch` to the host, before the image. A record that is made from a half-written image has the older epoch, so
/// the plan is applied to it too.
pub(crate) fn set_plan<K: Kernel>(host: &Host<K>, plan: &Plan, epoch: u32) -> Result<()> {
    for scope in &SCOPES {
        host.data.set_plan(scope, epoch, &steps::of(plan, scope.scope, &host.registry)?);
    }
    Ok(())
}

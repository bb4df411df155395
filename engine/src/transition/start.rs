//! The start: a host is attached, with a policy in its first slot, where there was none.

use crate::transition::commit;
use crate::transition::finish;
use crate::transition::kernel::Kernel;
use crate::transition::plan;
use crate::transition::prepare;
use std::time::Instant;

use crate::candidate::load::AttachConstraint;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi;
use crate::host::abi::Active;
use crate::host::loaded::Loaded;
use crate::host::registry::Kind;
use crate::host::registry::Registry;
use crate::observe::report::Report;
use crate::observe::report::Timings;
use crate::os::clock::Clock;
use crate::transition::interrupt;
use crate::transition::method::CommitMethod;
use crate::transition::options::SwapOptions;
use crate::transition::reattach;

/// Start a host with `policy` in its first slot. The queues are made by the host's init and the records by its
/// init_task, where they have not been yet, so there is nothing to settle or to sweep.
pub(crate) fn start<K: Kernel>(
    pins: &K,
    policy: &Policy,
    options: SwapOptions<'_>,
) -> Result<(Host<K>, Loaded<K::Object>, Report)> {
    let mut clock = Clock::start();
    let foreign = match (pins.state().as_str(), pins.unknown_scheduler()) {
        ("disabled", _) => None,
        (_, Error::OtherScheduler { .. }) if options.replace => Some(pins.foreign()?),
        (_, other) => return Err(other),
    };
    pins.check_for_host()?;
    // What a killed start or an ejected host left.
    let change = interrupt::change()?;
    match &foreign {
        Some(_) => pins.remove_host()?,
        None => pins.remove_all()?,
    }
    drop(change);

    let kernel = pins.btf()?;
    let inspected = K::inspect(policy)?;
    let open_ns = clock.lap();

    let slot = 0;
    let mut registry = Registry::new();
    let plan = plan::plan(&mut registry, &inspected, None, slot, true)?;
    let queue_rows = registry.queue_rows(slot, &inspected.schema.queues);
    let queues = registry.claim_queues(&inspected.schema, slot, None)?;
    registry.terms = K::first_terms(&kernel, &K::asks_of(&kernel, policy)?, options.minimal_ops);
    let prepared = options
        .restore
        .map(|path| K::read_snapshot(path, &inspected.schema, (&inspected.schema.policy, policy.version())))
        .transpose()?;
    let plan_ns = clock.lap();

    let mut object = pins.load_host(&kernel, &registry.terms)?;
    let mut change = interrupt::change()?;
    let mut host = pins.pin_host(&mut object).and_then(|()| Host::make(pins)).inspect_err(|_| undo(pins))?;
    // The host's empty slots must not count as live while they are filled.
    host.data.commit(Active { slot: abi::NR_SLOTS as u8 - 1, generation: 0, epoch: 1 });
    let home = LoadTarget {
        layout: &plan.layout,
        slot,
        load: registry.loads + 1,
        queues: &queues.ids(),
        on: AttachConstraint::These(&registry.terms),
    };
    let loaded = K::load(&host, policy, &inspected, &kernel, &home).inspect_err(|_| undo(pins))?;
    let generation = plan::record_load(&mut registry, policy, &inspected, &loaded, Kind::Start, slot, 1);
    let load_ns = clock.lap();

    host.data.set_boot_queues(&queues.all.iter().map(|q| host.family(q)).collect::<Vec<_>>());
    let after = Active { slot, generation: generation.number, epoch: 1 };
    registry.pending = Some(CommitMethod::in_place().pending(&host, &generation, after, None));
    prepare::prepare(&mut host, registry, &plan, &loaded, after, &[]).inspect_err(|_| undo(pins))?;
    let mut report = Report::new(&generation, None);
    report.timings.prepare_ns = clock.lap();

    report.timings.commit_ns = commit::commit(&host, after);
    // Makes their records; init_task finds them, and makes those of the tasks that are born meanwhile.
    host.walk_tasks();
    clock.lap();

    // The records of cgroups are made here, where the snapshot has something for them.
    if let Some(prepared) = &prepared {
        let restored = K::restore(&host, prepared, &inspected.schema, slot).inspect_err(|_| undo(pins))?;
        report.restored = Some(restored);
        clock.lap();
    }
    change.decide().inspect_err(|_| undo(pins))?;
    let gap = Instant::now();
    if let Some(foreign) = &foreign {
        pins.detach_foreign(foreign).inspect_err(|_| undo(pins))?;
        report.timings.detach_ns = clock.lap();
    }
    let attached = reattach::attach(&mut host, &mut object);
    report.timings.attach_ns = clock.lap();
    match (attached, &foreign) {
        (Ok(()), None) => {}
        (Ok(()), Some(foreign)) => {
            report.timings.gap_ns = gap.elapsed().as_nanos() as u64;
            report.from = Some(K::name_of(foreign).to_owned());
        }
        (Err(error), foreign) => {
            drop(host);
            undo(pins);
            return Err(match foreign {
                Some(foreign) => restore_previous(pins, foreign, error),
                None => error,
            });
        }
    }

    finish::mark_complete(&mut host);
    report.columns = plan.rows();
    report.queues = queue_rows;
    report.timings = Timings { open_ns, plan_ns, load_ns, total_ns: clock.total(), ..report.timings };
    Ok((host, loaded, report))
}

fn restore_previous<K: Kernel>(pins: &K, foreign: &K::Foreign, error: Error) -> Error {
    match pins.restore_foreign(foreign) {
        Ok(()) => Error::PutBack { source: Box::new(error) },
        Err(again) => Error::NotPutBack { source: Box::new(error), again: Box::new(again) },
    }
}

/// A start failed: leave nothing behind.
fn undo<K: Kernel>(pins: &K) {
    if let Err(e) = pins.remove_host() {
        log::warn!("{e}");
    }
}

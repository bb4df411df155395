//! The swap, step by step, in the order and with the names of the design:
//!
//! 1. **open** the policy's object: schema, queues;
//! 2. **plan** against the resident layout;
//! 3. **load**: augmented BTF, shared maps, verifier;
//! 4. **prepare**: queues, new global columns, image and plan for the records, program arrays of the idle slot;
//! 5. **commit**: one store;
//! 6. **settle**: a grace period, after which no op of the old policy is in flight;
//! 7. **sweep** the records and **hand over** the tasks on queues that the new policy does not name.
//!
//! A start has nothing to settle or to sweep and is in `start.rs`. A rollback is 2, 4, 5, 6 and 7 without the load; one that
//! needs a conversion of the newer policy's own is in `hold.rs`.
//!
//! Every step is safe to die in. Up to 4 the registry's `pending` says what to undo; from 5 on the control word says
//! that it happened, and `pending` what to finish. See `recover.rs`.

use crate::host::registry::RollbackTarget;
use crate::transition::commit::warm_up_commit;
use crate::transition::finish::finish;
use crate::transition::kernel::Kernel;
use crate::transition::method::CommitMethod;
use crate::transition::method::PreloadedHost;
use crate::transition::plan::caller;
use crate::transition::plan::log_step;
use crate::transition::plan::plan;
use crate::transition::plan::record_load;
use crate::transition::plan::scopes_to_sweep;
use crate::transition::plan::target;
use crate::transition::prepare::prepare;
use crate::transition::prepare::set_plan;

use crate::candidate::load::AttachConstraint;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::loaded::Loaded;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::SlotInfo;
use crate::observe::report::Report;
use crate::os::clock::Clock;
use crate::os::clock::unix_time;
use crate::os::priority;
use crate::os::realtime::Children;
use crate::transition::interrupt;
use crate::transition::options::SwapOptions;
use crate::transition::quiesce;
use crate::transition::quiesce::QuiescedRollback;
use crate::transition::recover;

/// What `--lean` comes to where a host is there already.
const NOT_LEAN: &str = "the host has all ops, as it was started: --lean counts where a host is started";

/// Swap `policy` in for the one that runs, or that ran when the kernel took the host off.
///
/// # Errors
/// As [`crate::transition::take_over::take_over`].
pub(crate) fn swap<K: Kernel>(
    host: &mut Host<K>,
    policy: &Policy,
    wish: SwapOptions<'_>,
) -> Result<(Loaded<K::Object>, Report)> {
    let mut clock = Clock::start();
    let before = host.data.active();
    let from = host.registry.slot(before.slot).map(SlotInfo::title);

    log_step("open");
    let (kernel, inspected) = priority::lowered(|| Result::Ok((host.pins.btf()?, K::inspect(policy)?)))?;
    let open_ns = clock.lap();

    log_step("plan");
    let slot = host.registry.choose_slot(before.slot);
    let mut registry = host.registry.clone();
    registry.evict(slot);
    let plan = plan(&mut registry, &inspected, Some(before.slot), slot, !wish.no_carry)?;
    let schema = &inspected.schema;
    let (queue_rows, queues) = if wish.no_carry {
        (registry.queue_rows_anew(before.slot, &schema.queues), registry.claim_new_queues(schema, slot)?)
    } else {
        (
            registry.queue_rows(before.slot, &schema.queues),
            registry.claim_queues(schema, slot, Some(before.slot))?,
        )
    };
    let plan_ns = clock.lap();

    log_step("load");
    let home = LoadTarget {
        layout: &plan.layout,
        slot,
        load: registry.loads + 1,
        queues: &queues.ids(),
        on: if wish.may_reattach || !host.attached {
            AttachConstraint::Any
        } else {
            AttachConstraint::These(&host.registry.terms)
        },
    };
    let loaded = priority::lowered(|| K::load(host, policy, &inspected, &kernel, &home))?;
    let way = CommitMethod::find(host, &kernel, &loaded.asks)?;
    let generation =
        record_load(&mut registry, policy, &inspected, &loaded, Kind::Swap, slot, before.generation + 1);
    let load_ns = clock.lap();

    let mut change = interrupt::change()?;
    log_step("prepare");
    // A swap that changes no record needs no new epoch, and so no sweep.
    let scopes = scopes_to_sweep(&plan);
    let after =
        Active { slot, generation: generation.number, epoch: before.epoch + u32::from(!scopes.is_empty()) };
    // A reattach makes all queues anew.
    let new_queues = if way.is_in_place() { &queues.new[..] } else { &[] };
    registry.pending = Some(way.pending(host, &generation, after, caller(&plan)));
    prepare(host, registry, &plan, &loaded, after, new_queues)?;
    let compiled = K::compile(host, &plan);
    if !scopes.is_empty() {
        // Before the commit, where it may take its time.
        priority::lowered(|| K::walk_tasks(host));
    }
    let mut report = Report::new(&generation, from);
    report.timings.prepare_ns = clock.lap();

    log_step("commit");
    // From here on the new policy decides when this thread runs, if it is a task like any.
    // It stays so until whoever waits for this process has its report.
    host.urgent = Some(host.pins.hurry(Children::Too));
    if let Err(interrupted) = change.decide() {
        recover::abandon(host, after.slot)?;
        return Err(interrupted);
    }
    let scopes = way.take(host, after, &scopes, &mut report)?;
    clock.lap();

    finish(host, &mut report, scopes, compiled.as_ref(), caller(&plan), &mut clock)?;
    if wish.lean && host.registry.terms.spared.is_empty() {
        report.warnings.push(NOT_LEAN.to_string());
    }
    report.tell(&plan);
    report.queues = queue_rows;
    report.timings.open_ns = open_ns;
    report.timings.plan_ns = plan_ns;
    report.timings.load_ns = load_ns;
    report.timings.total_ns = clock.total();
    Ok((loaded, report))
}

/// Make the policy of an earlier generation active again. It is still loaded: no verifier, no process, unless it takes a
/// reattach (`may_reattach`), which loads the host again.
///
/// # Errors
/// [`Error::NoRollback`] when it is not loaded, [`Error::AlreadyRunning`] when it is what runs.
pub(crate) fn rollback<K: Kernel>(
    host: &mut Host<K>,
    aim: RollbackTarget,
    may_reattach: bool,
) -> Result<Report> {
    go_back(host, aim, Kind::Rollback, may_reattach, None)
}

/// Attach a host again that the kernel took off, with one of the loaded policies. `ready` is the host, loaded ahead.
///
/// # Errors
/// As [`rollback`].
pub(crate) fn recover<K: Kernel>(
    host: &mut Host<K>,
    aim: RollbackTarget,
    ready: Option<PreloadedHost<K>>,
) -> Result<Report> {
    go_back(host, aim, Kind::Recovery, true, ready)
}

fn go_back<K: Kernel>(
    host: &mut Host<K>,
    aim: RollbackTarget,
    kind: Kind,
    may_reattach: bool,
    ready: Option<PreloadedHost<K>>,
) -> Result<Report> {
    let mut clock = Clock::start();
    log_step("plan");
    let before = host.data.active();
    let target = target(&host.registry, before.slot, aim)?.clone();
    let from = host.registry.slot(before.slot).map(SlotInfo::title);
    let queues = host.registry.slot(target.slot).map_or(&[][..], |s| &s.schema.queues);
    let queue_rows = host.registry.queue_rows(before.slot, queues);
    let asks = host.registry.slot(target.slot).map(SlotInfo::asks).unwrap_or_default();
    let in_place = host.attached && host.registry.terms.satisfies(&asks);
    if host.attached && !in_place && !may_reattach {
        let why = K::why_not(&priority::lowered(|| host.pins.btf())?, &host.registry.terms, &asks);
        return Err(Error::NeedsReattach { policy: target.policy, why });
    }
    if !in_place {
        host.pins.check_attach()?;
    }
    let terms = host.registry.terms.extended_for(&asks);
    let generation = Generation { number: before.generation + 1, kind, unix_time: unix_time(), ..target };
    // Columns that both name are carried. Where the newer policy converted one, its value is brought back.
    let mut registry = host.registry.clone();
    let QuiescedRollback { plan, hold } =
        quiesce::plan_back(&mut registry, before.slot, generation.slot, in_place)?;
    let plan_ns = clock.lap();
    let scopes = scopes_to_sweep(&plan);
    let epoch = before.epoch + u32::from(!scopes.is_empty());
    let after = Active { slot: generation.slot, generation: generation.number, epoch };
    // In place it needs nothing but the registry.
    let way = match ready.filter(|ready| ready.is_for(host, &terms)) {
        _ if in_place => CommitMethod::InPlace { hold },
        Some(ready) => ready.into_way(),
        None => PreloadedHost::load(host, &terms)?.into_way(),
    };
    let load_ns = clock.lap();
    log_step("prepare");
    registry.pending = Some(way.pending(host, &generation, after, caller(&plan)));
    host.registry = registry;
    host.save()?;
    if let Some(slot) = hold {
        // A policy may have had to go for it.
        host.empty(slot)?;
    }
    if !scopes.is_empty() {
        set_plan(host, &plan, after.epoch)?;
    }
    warm_up_commit(host);
    let mut report = Report::new(&generation, from);
    report.timings.plan_ns = plan_ns;
    if !way.is_in_place() {
        report.timings.load_ns = load_ns;
    }
    report.timings.prepare_ns = clock.lap();

    log_step("commit");
    let scopes = way.take(host, after, &scopes, &mut report)?;
    clock.lap();

    finish(host, &mut report, scopes, None, caller(&plan), &mut clock)?;
    if in_place {
        // Whoever takes a policy back may do so because it forgets tasks.
        match host.pins.rescue() {
            Ok(rescued) => report.tasks_rescued = rescued,
            // The rollback is done all the same.
            Err(e) => report.warnings.push(e.to_string()),
        }
    }
    report.tell(&plan);
    report.queues = queue_rows;
    report.timings.total_ns = clock.total();
    Ok(report)
}

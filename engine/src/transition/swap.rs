//! The swap, step by step, in the order and with the names of the design:
//!
//! 1. **open** the policy's object: schema, queues;
//! 2. **plan** against the resident layout;
//! 3. **load**: augmented BTF, shared maps, verifier;
//! 4. **prepare**: queues, programs of the idle slot, plan, image of new records;
//! 5. **commit**: one store;
//! 6. **settle**: a grace period, after which no op of the old policy is in flight;
//! 7. **sweep** the records and **hand over** the tasks on queues that the new policy does not name.
//!
//! Each step is a type, and takes the step before: `Opened`, `Planned`, `Verified`, `Prepared`, `Committed`. A rollback
//! and a recovery have nothing to open or to load: they plan, and join at `Prepared`. A start has nothing to settle or to sweep and
//! is in `start.rs`. How a commit is done where one store does not do it is in `method.rs`.
//!
//! Every step is safe to die in. Up to 4 the registry's `pending` says what to undo; from 5 on the control word says
//! that it happened, and `pending` what to finish. See `recover.rs`.

use state_migrate::Plan;
use state_migrate::QueueRow;

use crate::candidate::load::AttachConstraint;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::loaded::Loaded;
use crate::host::registry::Claimed;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::Registry;
use crate::host::registry::RollbackTarget;
use crate::host::registry::SlotInfo;
use crate::host::scopes::ScopeParts;
use crate::observe::report::Report;
use crate::observe::report::Timings;
use crate::os::clock::Clock;
use crate::os::clock::unix_time;
use crate::os::priority;
use crate::os::realtime::Children;
use crate::transition::commit::commit;
use crate::transition::commit::warm_up_commit;
use crate::transition::finish::finish;
use crate::transition::interrupt;
use crate::transition::interrupt::Change;
use crate::transition::kernel::Kernel;
use crate::transition::method::CommitMethod;
use crate::transition::method::PreloadedHost;
use crate::transition::options::SwapOptions;
use crate::transition::plan::caller;
use crate::transition::plan::log_step;
use crate::transition::plan::plan;
use crate::transition::plan::record_load;
use crate::transition::plan::scopes_to_sweep;
use crate::transition::plan::target;
use crate::transition::prepare::prepare;
use crate::transition::prepare::set_plan;
use crate::transition::quiesce;
use crate::transition::quiesce::QuiescedRollback;
use crate::transition::recover;

/// What `--minimal-ops` comes to where a host is there already.
const NOT_MINIMAL: &str =
    "the host has all ops, as it was started: --minimal-ops counts where a host is started";

/// Swap `policy` in for the one that runs, or that ran when the kernel took the host off.
///
/// # Errors
/// As [`crate::transition::take_over::take_over`].
pub(crate) fn swap<K: Kernel>(
    host: &mut Host<K>,
    policy: &Policy,
    options: SwapOptions<'_>,
) -> Result<(Loaded<K::Object>, Report)> {
    let opened = Opened::open(host, policy, options)?;
    let planned = opened.plan()?;
    let verified = planned.load()?;
    let (prepared, loaded) = verified.prepare()?;
    let committed = prepared.commit()?;
    let mut report = committed.finish()?;
    if options.minimal_ops && host.registry.terms.spared.is_empty() {
        report.warnings.push(NOT_MINIMAL.to_string());
    }
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

/// Step 1 is done: what the policy has is known.
struct Opened<'h, K: Kernel> {
    host: &'h mut Host<K>,
    policy: &'h Policy,
    options: SwapOptions<'h>,
    btf: K::Btf,
    inspected: Inspected,
    before: Active,
    clock: Clock,
    timings: Timings,
}

/// Step 2 is done: what becomes of each column and queue is known.
struct Planned<'h, K: Kernel> {
    opened: Opened<'h, K>,
    /// The registry as it is to be.
    registry: Registry,
    slot: u8,
    plan: Plan,
    queues: Claimed,
    queue_rows: Vec<QueueRow>,
}

/// Step 3 is done: the kernel has verified the policy's programs.
struct Verified<'h, K: Kernel> {
    planned: Planned<'h, K>,
    loaded: Loaded<K::Object>,
    method: CommitMethod<K>,
    generation: Generation,
}

/// Step 4 is done: all is in place, and what runs does not know of it yet.
struct Prepared<'h, K: Kernel> {
    host: &'h mut Host<K>,
    method: CommitMethod<K>,
    plan: Plan,
    scopes: Vec<&'static ScopeParts>,
    after: Active,
    compiled: Option<K::Compiled>,
    /// Until the commit a signal can still stop it; none: nothing was prepared that would have to be undone.
    change: Option<Change>,
    /// Does the commit also re-enqueue lost tasks?
    rescues: bool,
    report: Report,
    clock: Clock,
}

/// Step 5 is done: the new policy runs.
struct Committed<'h, K: Kernel> {
    host: &'h mut Host<K>,
    plan: Plan,
    /// The scopes that have yet to be swept.
    scopes: Vec<&'static ScopeParts>,
    compiled: Option<K::Compiled>,
    rescues: bool,
    report: Report,
    clock: Clock,
    _change: Option<Change>,
}

impl<'h, K: Kernel> Opened<'h, K> {
    fn open(host: &'h mut Host<K>, policy: &'h Policy, options: SwapOptions<'h>) -> Result<Opened<'h, K>> {
        let mut clock = Clock::start();
        log_step("open");
        let before = host.data.active();
        let (btf, inspected) = priority::lowered(|| Result::Ok((host.pins.btf()?, K::inspect(policy)?)))?;
        let timings = Timings { open_ns: clock.lap(), ..Timings::default() };
        Ok(Opened { host, policy, options, btf, inspected, before, clock, timings })
    }

    fn plan(mut self) -> Result<Planned<'h, K>> {
        log_step("plan");
        let running = self.before.slot;
        let slot = self.host.registry.choose_slot(running);
        let mut registry = self.host.registry.clone();
        registry.evict(slot);
        let plan = plan(&mut registry, &self.inspected, Some(running), slot, !self.options.no_carry)?;
        let schema = &self.inspected.schema;
        let (queue_rows, queues) = if self.options.no_carry {
            (registry.queue_rows_anew(running, &schema.queues), registry.claim_new_queues(schema, slot)?)
        } else {
            (
                registry.queue_rows(running, &schema.queues),
                registry.claim_queues(schema, slot, Some(running))?,
            )
        };
        self.timings.plan_ns = self.clock.lap();
        Ok(Planned { opened: self, registry, slot, plan, queues, queue_rows })
    }
}

impl<'h, K: Kernel> Planned<'h, K> {
    fn load(mut self) -> Result<Verified<'h, K>> {
        log_step("load");
        let Opened { host, policy, options, btf, inspected, before, .. } = &self.opened;
        let target = LoadTarget {
            layout: &self.plan.layout,
            slot: self.slot,
            load: self.registry.loads + 1,
            queues: &self.queues.ids(),
            on: if options.may_reattach || !host.attached {
                AttachConstraint::Any
            } else {
                AttachConstraint::These(&host.registry.terms)
            },
        };
        let loaded = priority::lowered(|| K::load(host, policy, inspected, btf, &target))?;
        let method = CommitMethod::find(host, btf, &loaded.asks)?;
        let number = before.generation + 1;
        let generation =
            record_load(&mut self.registry, policy, inspected, &loaded, Kind::Swap, self.slot, number);
        self.opened.timings.load_ns = self.opened.clock.lap();
        Ok(Verified { planned: self, loaded, method, generation })
    }
}

impl<'h, K: Kernel> Verified<'h, K> {
    fn prepare(self) -> Result<(Prepared<'h, K>, Loaded<K::Object>)> {
        let change = interrupt::change()?;
        log_step("prepare");
        let Verified { planned, loaded, method, generation } = self;
        let Planned { opened, mut registry, slot, plan, queues, queue_rows } = planned;
        let Opened { host, before, mut clock, timings, .. } = opened;
        let from = host.registry.slot(before.slot).map(SlotInfo::title);
        // A swap that changes no record needs no new epoch, and so no sweep.
        let scopes = scopes_to_sweep(&plan);
        let epoch = before.epoch + u32::from(!scopes.is_empty());
        let after = Active { slot, generation: generation.number, epoch };
        // A reattach makes all queues anew.
        let new_queues = if method.is_in_place() { &queues.new[..] } else { &[] };
        registry.pending = Some(method.pending(host, &generation, after, caller(&plan)));
        prepare(host, registry, &plan, &loaded, after, new_queues)?;
        let compiled = host.compile(&plan);
        if !scopes.is_empty() {
            // Before the commit, where it may take its time.
            priority::lowered(|| host.walk_tasks());
        }
        let mut report = Report::new(&generation, from);
        report.queues = queue_rows;
        report.timings = Timings { prepare_ns: clock.lap(), ..timings };
        let change = Some(change);
        let rescues = false;
        Ok((Prepared { host, method, plan, scopes, after, compiled, change, rescues, report, clock }, loaded))
    }
}

impl<'h, K: Kernel> Prepared<'h, K> {
    fn commit(self) -> Result<Committed<'h, K>> {
        let Prepared { host, method, plan, mut scopes, after, compiled, mut change, .. } = self;
        let (rescues, mut report, mut clock) = (self.rescues, self.report, self.clock);
        log_step("commit");
        if let Some(change) = &mut change {
            // After the commit the new policy schedules this thread, and may starve it. So the thread stays SCHED_FIFO until the
            // report is printed.
            host.realtime = Some(host.pins.begin_realtime(Children::Too));
            if let Err(interrupted) = change.decide() {
                recover::abandon(host, after.slot)?;
                return Err(interrupted);
            }
        }
        match method.in_one_store(host, after) {
            // The store. In a function of its own: `warm_up_commit()` has run it already, code and page and all.
            Ok(()) => report.timings.commit_ns = commit(host, after),
            Err(method) => {
                if method.commit(host, after, &scopes, &mut report)? {
                    scopes.clear();
                }
            }
        }
        clock.lap();
        Ok(Committed { host, plan, scopes, compiled, rescues, report, clock, _change: change })
    }
}

impl<K: Kernel> Committed<'_, K> {
    fn finish(self) -> Result<Report> {
        let Committed { host, plan, scopes, compiled, rescues, mut report, mut clock, .. } = self;
        finish(host, &mut report, &scopes, compiled.as_ref(), caller(&plan), &mut clock)?;
        if rescues {
            match host.pins.rescue() {
                Ok(rescued) => report.tasks_rescued = rescued,
                // The rollback is done all the same.
                Err(e) => report.warnings.push(e.to_string()),
            }
        }
        report.tell(&plan);
        report.timings.total_ns = clock.total();
        Ok(report)
    }
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
    let method = match ready.filter(|ready| ready.is_for(host, &terms)) {
        _ if in_place => CommitMethod::InPlace { hold },
        Some(ready) => ready.into_method(),
        None => PreloadedHost::load(host, &terms)?.into_method(),
    };
    let load_ns = if in_place { 0 } else { clock.lap() };
    log_step("prepare");
    registry.pending = Some(method.pending(host, &generation, after, caller(&plan)));
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
    report.queues = queue_rows;
    report.timings = Timings { plan_ns, load_ns, prepare_ns: clock.lap(), ..Timings::default() };
    // Whoever takes a policy back may do so because it forgets tasks.
    let (compiled, change, rescues) = (None, None, in_place);
    Prepared { host, method, plan, scopes, after, compiled, change, rescues, report, clock }
        .commit()?
        .finish()
}

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

use std::time::Instant;

use libbpf_rs::Object;
use state_migrate::Plan;

use crate::candidate::load;
use crate::candidate::load::Home;
use crate::candidate::load::On;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::attach_config::Asks;
use crate::host::attach_config::Terms;
use crate::host::compiled_sweep::Compiled;
use crate::host::loaded::Loaded;
use crate::host::registry::Generation;
use crate::host::registry::Kind;
use crate::host::registry::Pending;
use crate::host::registry::QueueInfo;
use crate::host::registry::Reattach;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;
use crate::host::requeue;
use crate::host::requirements;
use crate::host::scopes::SCOPES;
use crate::host::scopes::ScopeParts;
use crate::host::steps;
use crate::host::sweep::Sweeper;
use crate::host::worker_pool;
use crate::host::worker_pool::Crew;
use crate::kernel::btf::KernelBtf;
use crate::kernel::sysfs;
use crate::os::clock::Clock;
use crate::os::clock::monotonic_ns;
use crate::os::clock::unix_time;
use crate::os::priority::politely;
use crate::os::realtime::Children;
use crate::os::realtime::Urgent;
use crate::transition::interrupt;
use crate::transition::quiesce;
use crate::transition::quiesce::Back;
use crate::transition::reattach;
use crate::transition::recover;
use crate::transition::report::Report;
use crate::transition::take_over::Wish;

/// What `--lean` comes to where a host is there already.
const NOT_LEAN: &str = "the host has all ops, as it was started: --lean counts where a host is started";

/// Swap `policy` in for the one that runs, or that ran when the kernel took the host off.
///
/// # Errors
/// As [`crate::transition::take_over::take_over`].
pub fn swap(host: &mut Host, policy: &Policy, wish: Wish<'_>) -> Result<(Loaded, Report)> {
    let mut clock = Clock::start();
    let before = host.data.active();
    let from = host.registry.slot(before.slot).map(SlotInfo::title);

    begin("open");
    let (kernel, inspected) = politely(|| Result::Ok((KernelBtf::read()?, policy.inspect()?)))?;
    let open_ns = clock.lap();

    begin("plan");
    let slot = host.registry.choose_slot(before.slot);
    let mut books = host.registry.clone();
    books.evict(slot);
    let plan = plan(&mut books, &inspected, Some(before.slot), slot, !wish.no_carry)?;
    let schema = &inspected.schema;
    let (queue_rows, queues) = if wish.no_carry {
        (books.queue_rows_anew(before.slot, &schema.queues), books.claim_new_queues(schema, slot)?)
    } else {
        (books.queue_rows(before.slot, &schema.queues), books.claim_queues(schema, slot, Some(before.slot))?)
    };
    let plan_ns = clock.lap();

    begin("load");
    let home = Home {
        layout: &plan.layout,
        slot,
        load: books.loads + 1,
        queues: &queues.ids(),
        shared: host.shared(),
        on: if wish.may_reattach || !host.attached { On::Any } else { On::These(&host.registry.terms) },
    };
    let loaded = politely(|| load::load_for_host(policy, &inspected, &kernel, &home))?;
    let way = Way::find(host, &kernel, &loaded.asks)?;
    let generation =
        settle_books(&mut books, policy, &inspected, &loaded, Kind::Swap, slot, before.generation + 1);
    let load_ns = clock.lap();

    let mut change = interrupt::change()?;
    begin("prepare");
    // A swap that changes no record needs no new epoch, and so no sweep.
    let scopes = scopes_to_sweep(&plan);
    let after =
        Active { slot, generation: generation.number, epoch: before.epoch + u32::from(!scopes.is_empty()) };
    // A reattach makes all queues anew.
    let new_queues = if way.is_in_place() { &queues.new[..] } else { &[] };
    books.pending = Some(way.pending(host, &generation, after, caller(&plan)));
    prepare(host, books, &plan, &loaded, after, new_queues)?;
    let compiled = compile(host, &plan);
    if !scopes.is_empty() {
        // Before the commit, where it may take its time.
        politely(|| host.walk_tasks());
    }
    let mut report = Report::new(&generation, from);
    report.timings.prepare_ns = clock.lap();

    begin("commit");
    // From here on the new policy decides when this thread runs, if it is a task like any.
    // It stays so until whoever waits for this process has its report.
    host.urgent = Some(Urgent::begin(Children::Too));
    if let Err(interrupted) = change.decide() {
        recover::abandon(host, after.slot)?;
        return Err(interrupted);
    }
    let scopes = way.take(host, after, &scopes, &mut report)?;
    clock.lap();

    let sweeper = Sweeper { compiled: compiled.as_ref(), slot: caller(&plan) };
    finish(host, &mut report, scopes, sweeper, &mut clock)?;
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

/// Which of the loaded policies a rollback or a recovery makes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The one before the running one.
    Before,
    /// That of the generation of this number.
    Generation(u32),
    /// The one that ran when the kernel took the host off.
    Same,
}

/// The generation whose policy is aimed at.
pub(crate) fn target(books: &Registry, active: u8, aim: Aim) -> Result<&Generation> {
    let none = |why: &str| Error::NoRollback { why: why.to_string() };
    match aim {
        Aim::Generation(number) => books.rollback_target_to(active, number),
        Aim::Before => books.rollback_target(active).ok_or_else(|| {
            none("no earlier policy is loaded (this is the first since the host was started)")
        }),
        Aim::Same => {
            books.latest_in(active).ok_or_else(|| none("the books do not say which policy ran before"))
        }
    }
}

/// Make the policy of an earlier generation active again. It is still loaded: no verifier, no process, unless it takes a
/// reattach (`may_reattach`), which loads the host again.
///
/// # Errors
/// [`Error::NoRollback`] when it is not loaded, [`Error::AlreadyRunning`] when it is what runs.
pub fn rollback(host: &mut Host, aim: Aim, may_reattach: bool) -> Result<Report> {
    go_back(host, aim, Kind::Rollback, may_reattach, None)
}

/// Attach a host again that the kernel took off, with one of the loaded policies. `ready` is the host, loaded ahead.
///
/// # Errors
/// As [`rollback`].
pub fn recover(host: &mut Host, aim: Aim, ready: Option<Ready>) -> Result<Report> {
    go_back(host, aim, Kind::Recovery, true, ready)
}

fn go_back(
    host: &mut Host,
    aim: Aim,
    kind: Kind,
    may_reattach: bool,
    ready: Option<Ready>,
) -> Result<Report> {
    let mut clock = Clock::start();
    begin("plan");
    let before = host.data.active();
    let target = target(&host.registry, before.slot, aim)?.clone();
    let from = host.registry.slot(before.slot).map(SlotInfo::title);
    let queues = host.registry.slot(target.slot).map_or(&[][..], |s| &s.schema.queues);
    let queue_rows = host.registry.queue_rows(before.slot, queues);
    let asks = host.registry.slot(target.slot).map(SlotInfo::asks).unwrap_or_default();
    let in_place = host.attached && host.registry.terms.suit(&asks);
    if host.attached && !in_place && !may_reattach {
        let why = host.registry.terms.why_not(&asks, &politely(KernelBtf::read)?);
        return Err(Error::NeedsReattach { policy: target.policy, why });
    }
    if !in_place {
        requirements::check_attach()?;
    }
    let terms = host.registry.terms.changed_for(&asks);
    let generation = Generation { number: before.generation + 1, kind, unix_time: unix_time(), ..target };
    // Columns that both name are carried. Where the newer policy converted one, its value is brought back.
    let mut books = host.registry.clone();
    let Back { plan, hold } = quiesce::plan_back(&mut books, before.slot, generation.slot, in_place)?;
    let plan_ns = clock.lap();
    let scopes = scopes_to_sweep(&plan);
    let epoch = before.epoch + u32::from(!scopes.is_empty());
    let after = Active { slot: generation.slot, generation: generation.number, epoch };
    // In place it needs nothing but the books.
    let way = match ready.filter(|ready| ready.is_for(host, &terms)) {
        _ if in_place => Way::InPlace { hold },
        Some(ready) => ready.into_way(),
        None => Ready::load(host, &terms)?.into_way(),
    };
    let load_ns = clock.lap();
    begin("prepare");
    books.pending = Some(way.pending(host, &generation, after, caller(&plan)));
    host.registry = books;
    host.save()?;
    if let Some(slot) = hold {
        // A policy may have had to go for it.
        host.empty(slot)?;
    }
    if !scopes.is_empty() {
        set_plan(host, &plan, after.epoch)?;
    }
    rehearse(host);
    let mut report = Report::new(&generation, from);
    report.timings.plan_ns = plan_ns;
    if !way.is_in_place() {
        report.timings.load_ns = load_ns;
    }
    report.timings.prepare_ns = clock.lap();

    begin("commit");
    let scopes = way.take(host, after, &scopes, &mut report)?;
    clock.lap();

    let sweeper = Sweeper { slot: caller(&plan), ..Sweeper::default() };
    finish(host, &mut report, scopes, sweeper, &mut clock)?;
    if in_place {
        // Whoever takes a policy back may do so because it forgets tasks.
        match requeue::rescue(host) {
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

/// Say which step begins.
fn begin(step: &str) {
    log::info!("step: {step}");
}

/// Plan, and take the plan's layout into the books.
pub(crate) fn plan(
    books: &mut Registry,
    inspected: &Inspected,
    running: Option<u8>,
    slot: u8,
    carry: bool,
) -> Result<Plan> {
    let plan_it = if carry { state_migrate::plan } else { state_migrate::plan_anew };
    let plan = plan_it(&books.layout, running.map(u32::from), &inspected.schema, u32::from(slot))?;
    books.layout = plan.layout.clone();
    Ok(plan)
}

/// Enter the loaded policy and the generation to come into the books.
pub(crate) fn settle_books(
    books: &mut Registry,
    policy: &Policy,
    inspected: &Inspected,
    loaded: &Loaded,
    kind: Kind,
    slot: u8,
    number: u32,
) -> Generation {
    let load = loaded.load;
    books.loads = load;
    books.slots[usize::from(slot)] = Some(SlotInfo {
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

/// The host, loaded ahead of a reattach: verified, over the maps of the one that is pinned.
#[derive(Debug)]
pub struct Ready {
    object: Box<Object>,
    terms: Terms,
    maps: Option<u32>,
}

impl Ready {
    /// Load it, to be attached on `terms`.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn load(host: &Host, terms: &Terms) -> Result<Ready> {
        Ready::load_with(host, &politely(KernelBtf::read)?, terms)
    }

    fn load_with(host: &Host, kernel: &KernelBtf, terms: &Terms) -> Result<Ready> {
        let object = Box::new(politely(|| reattach::load_over(host, kernel, terms))?);
        Ok(Ready { object, terms: terms.clone(), maps: host.identity() })
    }

    /// Can it be attached in the place of this host, on these terms? Not where that was stopped and another started
    /// meanwhile, which has other maps.
    pub fn is_for(&self, host: &Host, terms: &Terms) -> bool {
        self.terms == *terms && self.maps.is_some() && self.maps == host.identity()
    }

    fn into_way(self) -> Way {
        Way::Reattach { object: self.object, terms: self.terms }
    }
}

/// How the commit is done.
pub(crate) enum Way {
    /// By one store; behind a hold in this slot, if there is one.
    InPlace { hold: Option<u8> },
    /// By a reattach, for which the host's programs were loaded anew.
    Reattach { object: Box<Object>, terms: Terms },
}

impl Way {
    pub fn in_place() -> Way {
        Way::InPlace { hold: None }
    }

    /// `asks`: what the policy to come asks for.
    fn find(host: &Host, kernel: &KernelBtf, asks: &Asks) -> Result<Way> {
        let terms = &host.registry.terms;
        if host.attached && terms.suit(asks) {
            return Ok(Way::in_place());
        }
        requirements::check_attach()?;
        Ok(Ready::load_with(host, kernel, &terms.changed_for(asks))?.into_way())
    }

    fn is_in_place(&self) -> bool {
        matches!(self, Way::InPlace { .. })
    }

    pub fn pending(
        &self,
        host: &Host,
        generation: &Generation,
        after: Active,
        sweeper: Option<u8>,
    ) -> Pending {
        let (hold, reattach) = match self {
            Way::InPlace { hold } => (*hold, None),
            Way::Reattach { terms, .. } => {
                (None, Some(Reattach { from: host.registry.terms.clone(), to: terms.clone() }))
            }
        };
        Pending { generation: generation.clone(), epoch: after.epoch, sweeper, hold, reattach }
    }

    /// Step 5. Of the scopes whose records the plan changes it leaves those that are yet to be swept.
    fn take<'s>(
        self,
        host: &mut Host,
        after: Active,
        scopes: &'s [&'static ScopeParts],
        report: &mut Report,
    ) -> Result<&'s [&'static ScopeParts]> {
        match self {
            Way::InPlace { hold: None } => {
                adopt(host, after);
                report.timings.commit_ns = commit(host, after);
                return Ok(scopes);
            }
            Way::InPlace { hold: Some(slot) } => {
                if let Some(pending) = &host.registry.pending {
                    report.swept = quiesce::run(host, pending, slot, scopes)?.report(&mut report.timings);
                }
            }
            Way::Reattach { mut object, .. } => {
                report.take(reattach::switch(host, &mut object, after, scopes)?);
                recover::remake_queues(host)?;
            }
        }
        Ok(if report.swept.is_empty() { scopes } else { &[] })
    }
}

/// Step 4. All that the new policy needs is in place after it, and nothing that the old one uses has changed.
pub(crate) fn prepare(
    host: &mut Host,
    books: Registry,
    plan: &Plan,
    loaded: &Loaded,
    after: Active,
    new_queues: &[QueueInfo],
) -> Result<()> {
    host.registry = books;
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
    rehearse(host);
    Ok(())
}

/// Hand the plan of `epoch` to the host. Before the image: a record that is made from a half-written image has the
/// older stamp, and gets the plan all the same.
fn set_plan(host: &Host, plan: &Plan, epoch: u32) -> Result<()> {
    for scope in &SCOPES {
        host.data.set_plan(scope, epoch, &steps::of(plan, scope.scope, &host.registry)?);
    }
    Ok(())
}

/// Store the control word as it is. The page faults and cache misses of the first store from this process, and where
/// CPUs are emulated the translation of the code around it, are taken here and not in the commit.
fn rehearse(host: &Host) {
    let _ = commit(host, host.data.active());
}

/// The scopes to sweep: none, if the plan changes no record; else all. A record of a scope that the plan has no steps for
/// is brought up to date as well: one that nobody touches for as many epochs as plans are kept would be taken for one whose
/// plans are gone.
pub(crate) fn scopes_to_sweep(plan: &Plan) -> Vec<&'static ScopeParts> {
    if plan.steps.values().all(Vec::is_empty) { Vec::new() } else { SCOPES.iter().collect() }
}

/// The plan in instructions, for the sweep of many tasks. A kernel that does not take it costs time, nothing else.
fn compile(host: &Host, plan: &Plan) -> Option<Compiled> {
    if sysfs::tasks() < worker_pool::MANY {
        return None;
    }
    politely(|| Compiled::load(plan, &host.shared())).unwrap_or_else(|e| {
        log::warn!("the sweep takes longer: {e}");
        None
    })
}

/// The slot whose policy's own programs must sweep, because the plan calls its conversions.
pub(crate) fn caller(plan: &Plan) -> Option<u8> {
    plan.caller().and_then(|slot| u8::try_from(slot).ok())
}

/// Let the host serve the queues that the policy in `slot` does not name, from just before its commit on: a task that
/// waits there when the commit comes must not depend on this process, which may be killed, and which in a moment waits
/// for a grace period that the task may be needed for. The host's timer, which waits for the commit, hands those tasks over,
/// and shortens the slices that the earlier policy gave: see `bpf/host/handover.bpf.h`.
pub(crate) fn adopt(host: &Host, after: Active) {
    if !host.attached {
        // There are no queues.
        return;
    }
    let queues = host.registry.queues.iter().filter(|q| !q.slots.contains(&u32::from(after.slot)));
    host.data.set_orphans(&queues.map(|q| host.family(q)).collect::<Vec<_>>(), Some(after));
    host.start_handover(false);
}

/// Step 5; how long it took, ns. It reads the clock itself: then the rehearsal runs all of the code that the commit does.
#[inline(never)]
pub(crate) fn commit(host: &Host, after: Active) -> u64 {
    let begin = Instant::now();
    host.data.commit(after);
    begin.elapsed().as_nanos() as u64
}

/// Steps 6 and 7, and the books closed.
pub(crate) fn finish(
    host: &mut Host,
    report: &mut Report,
    scopes: &[&ScopeParts],
    sweeper: Sweeper<'_>,
    clock: &mut Clock,
) -> Result<()> {
    report.committed_at_ns = monotonic_ns();
    // Those who will sweep are there when it is settled. They run when the new policy lets them.
    let crew = (!scopes.is_empty()).then(Crew::muster_eager);
    begin("settle");
    host.settle()?;
    host.start_handover(true);
    report.timings.settle_ns += clock.lap();
    begin("sweep");
    if let Some(crew) = &crew {
        report.swept = host.sweep_all(scopes, sweeper, crew).into_iter().collect::<Result<_>>()?;
        report.timings.sweep_ns = clock.lap();
    }
    begin("hand over");
    report.tasks_handed_over = hand_over(host)?;
    report.timings.hand_over_ns = clock.lap();
    begin("close");
    close_books(host);
    report.timings.close_ns = clock.lap();
    Ok(())
}

/// Hand over the tasks that sit on queues which the running policy does not name, and destroy the queues that nobody
/// names. No op of an earlier policy is in flight any more, so nothing is added to them.
pub(crate) fn hand_over(host: &mut Host) -> Result<u64> {
    if !host.attached {
        // Its queues went with it, and are made anew when it is attached.
        host.registry.queues.retain(|q| !q.slots.is_empty());
        host.save()?;
        return Ok(0);
    }
    let active = host.data.active();
    let mut handed = 0;
    for queue in host.registry.queues.iter().filter(|q| !q.slots.contains(&u32::from(active.slot))) {
        handed += host.drain_queue(queue)?;
    }
    handed += u64::from(host.data.orphans_served());
    // The timer may not be done with the slices yet.
    host.data.set_orphans(&[], Some(active));
    let (kept, unnamed): (Vec<_>, Vec<_>) =
        std::mem::take(&mut host.registry.queues).into_iter().partition(|q| !q.slots.is_empty());
    host.registry.queues = kept;
    if !unnamed.is_empty() {
        // The kernel ejects a scheduler that asks for a queue which is gone: wait until no dispatch still may.
        host.settle()?;
        unnamed.iter().try_for_each(|q| host.destroy_queue(q))?;
        host.save()?;
    }
    Ok(handed)
}

/// The commit is done and nothing is left to finish. The books were written before the commit, with the generation
/// pending; that it is not any more is one store. Who reads them next takes it from there.
pub(crate) fn close_books(host: &mut Host) {
    if let Some(pending) = &host.registry.pending {
        host.data.close(pending.generation.number);
    }
    host.registry.settle(host.data.closed());
}

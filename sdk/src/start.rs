//! The start: a host is attached, with a policy in its first slot, where there was none.

use std::time::Instant;

use crate::abi;
use crate::abi::Active;
use crate::clock::Clock;
use crate::environment;
use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::kernel;
use crate::kernel_btf::KernelBtf;
use crate::launcher;
use crate::load;
use crate::load::Home;
use crate::load::Loaded;
use crate::load::On;
use crate::pins::Pins;
use crate::policy::Policy;
use crate::reattach;
use crate::registry::Kind;
use crate::registry::Registry;
use crate::report::Report;
use crate::snapshot;
use crate::stranger::Stranger;
use crate::swap;
use crate::swap::Way;
use crate::take_over::Wish;
use crate::terms::Terms;

/// Start a host with `policy` in its first slot. The queues are made by the host's init and the records by its
/// init_task, where they have not been yet, so there is nothing to settle or to sweep.
pub(crate) fn start(pins: &Pins, policy: &Policy, wish: Wish<'_>) -> Result<(Host, Loaded, Report)> {
    let mut clock = Clock::start();
    let stranger = match (kernel::state().as_str(), environment::unknown_scheduler(pins)) {
        ("disabled", _) => None,
        (_, Error::OtherScheduler { .. }) if wish.replace => Some(Stranger::find()?),
        (_, other) => return Err(other),
    };
    kernel::check_for_host()?;
    // What a killed start or an ejected host left.
    let change = launcher::change()?;
    match &stranger {
        Some(_) => pins.remove_host()?,
        None => pins.remove_all()?,
    }
    drop(change);

    let kernel = KernelBtf::read()?;
    let inspected = policy.inspect()?;
    let open_ns = clock.lap();

    let slot = 0;
    let mut books = Registry::new();
    let plan = swap::plan(&mut books, &inspected, None, slot, true)?;
    let queue_rows = books.queue_rows(slot, &inspected.schema.queues);
    let queues = books.claim_queues(&inspected.schema, slot, None)?;
    books.terms = Terms::first(&load::asks_of(policy, &kernel)?, wish.lean, &kernel);
    let prepared = wish
        .restore
        .map(|path| snapshot::prepare(path, &inspected.schema, (&inspected.schema.policy, policy.version())))
        .transpose()?;
    let plan_ns = clock.lap();

    let mut object = load::load_host(load::open_host(&kernel, &books.terms)?)?;
    let mut change = launcher::change()?;
    let mut host = Host::pin(pins, &mut object).inspect_err(|_| undo(pins))?;
    // The host's empty slots must not count as live while they are filled.
    host.data.commit(Active { slot: abi::NR_SLOTS as u8 - 1, generation: 0, epoch: 1 });
    let home = Home {
        layout: &plan.layout,
        slot,
        load: books.loads + 1,
        queues: &queues.ids(),
        shared: host.shared(),
        on: On::These(&books.terms),
    };
    let loaded = load::load_for_host(policy, &inspected, &kernel, &home).inspect_err(|_| undo(pins))?;
    let generation = swap::settle_books(&mut books, policy, &inspected, &loaded, Kind::Start, slot, 1);
    let load_ns = clock.lap();

    host.data.set_boot_queues(&queues.all.iter().map(|q| host.family(q)).collect::<Vec<_>>());
    let after = Active { slot, generation: generation.number, epoch: 1 };
    books.pending = Some(Way::in_place().pending(&host, &generation, after, None));
    swap::prepare(&mut host, books, &plan, &loaded, after, &[]).inspect_err(|_| undo(pins))?;
    let mut report = Report::new(&generation, None);
    report.timings.prepare_ns = clock.lap();

    report.timings.commit_ns = swap::commit(&host, after);
    // Makes their records; init_task finds them, and makes those of the tasks that are born meanwhile.
    host.walk_tasks();
    clock.lap();

    // The records of cgroups are made here, where the snapshot has something for them.
    if let Some(prepared) = &prepared {
        let restored =
            snapshot::apply(&host, prepared, &inspected.schema, slot).inspect_err(|_| undo(pins))?;
        report.restored = Some(restored);
        clock.lap();
    }
    change.decide().inspect_err(|_| undo(pins))?;
    let gap = Instant::now();
    if let Some(stranger) = &stranger {
        stranger.detach(pins).inspect_err(|_| undo(pins))?;
        report.timings.detach_ns = clock.lap();
    }
    let attached = reattach::attach(&mut host, &mut object);
    report.timings.attach_ns = clock.lap();
    match (attached, &stranger) {
        (Ok(()), None) => {}
        (Ok(()), Some(stranger)) => {
            report.timings.gap_ns = gap.elapsed().as_nanos() as u64;
            report.from = Some(stranger.name.clone());
        }
        (Err(error), stranger) => {
            drop(host);
            undo(pins);
            return Err(match stranger {
                Some(stranger) => put_back(pins, stranger, error),
                None => error,
            });
        }
    }

    swap::close_books(&mut host);
    report.columns = plan.rows();
    report.queues = queue_rows;
    report.timings.open_ns = open_ns;
    report.timings.plan_ns = plan_ns;
    report.timings.load_ns = load_ns;
    report.timings.total_ns = clock.total();
    Ok((host, loaded, report))
}

fn put_back(pins: &Pins, stranger: &Stranger, error: Error) -> Error {
    match stranger.put_back(pins) {
        Ok(()) => Error::PutBack { source: Box::new(error) },
        Err(again) => Error::NotPutBack { source: Box::new(error), again: Box::new(again) },
    }
}

/// A start failed: leave nothing behind.
fn undo(pins: &Pins) {
    if let Err(e) = pins.remove_host() {
        log::warn!("{e}");
    }
}

//! `--dry-run`: what `run`, `swap`, `rollback` and `stop` would do. Nothing is changed, and no lock is taken. What only the
//! verifier knows is not known here.

use std::fmt::Write as _;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::candidate::obstacles::Obstacles;
use scx_upgrade_engine::error::PRICE;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::SlotInfo;
use scx_upgrade_engine::host::requirements;
use scx_upgrade_engine::record_sizes;
use scx_upgrade_engine::transition::preview;
use scx_upgrade_engine::transition::preview::RollbackPreview;
use scx_upgrade_engine::transition::preview::SwapPreview;
use serde::Serialize;
use state_migrate::Layout;
use state_migrate::PlanReport;
use state_migrate::QueueRow;
use state_migrate::plan_report;
use state_migrate::plan_report_anew;
use state_migrate::queue_rows;

use crate::args::RollbackArgs;
use crate::args::RunArgs;
use crate::args::SwapArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;
use crate::verbs::plan;

const NOTHING: &str = "nothing was done: --dry-run";

/// A start or a swap that would be.
#[derive(Serialize)]
struct Would<'a> {
    dry_run: bool,
    would: &'static str,
    from: Option<String>,
    to: String,
    generation: u32,
    /// The policy that would have to go, and could not be gone back to any more.
    evicts: Option<String>,
    /// Why it takes a reattach; null if it does not.
    reattach: Option<String>,
    #[serde(flatten)]
    plan: &'a PlanReport,
}

pub fn run(pins: &Pins, args: &RunArgs, binary: &PolicyBinary, out: Output) -> Result<(), Failure> {
    let replaces = match Host::running(pins) {
        Err(Error::OtherScheduler { ops, .. }) if args.replace => Some(ops),
        Err(Error::NothingRunning) => None,
        // The kernel took a host off: its state is there, and what is to run takes it over.
        _ => {
            let asks = OpsRequirements { no_carry: args.policy.no_carry, may_reattach: true };
            return change("attach", pins, binary, asks, out);
        }
    };
    requirements::check_for_host()?;
    let schema = binary.policy()?.schema()?;
    let layout = Layout::new(&record_sizes());
    let queues = queue_rows(&[], &[], &schema.queues);
    let plan = PlanReport { queues, ..plan_report(&layout, None, &schema, 0) };
    let to = name(binary)?;
    let would = Would {
        dry_run: true,
        would: "start",
        from: replaces,
        to,
        generation: 1,
        evicts: None,
        reattach: None,
        plan: &plan,
    };
    let obstacles = Obstacles::of(&binary.policy()?)?;
    show(&would, &obstacles, args.restore.is_none(), out)
}

pub fn swap(pins: &Pins, args: &SwapArgs, binary: &PolicyBinary, out: Output) -> Result<(), Failure> {
    let asks = OpsRequirements { no_carry: args.policy.no_carry, may_reattach: args.reattach.allow_reattach };
    change("swap in", pins, binary, asks, out)
}

/// How a change is asked for.
#[derive(Clone, Copy)]
struct OpsRequirements {
    no_carry: bool,
    may_reattach: bool,
}

fn change(
    would: &'static str,
    pins: &Pins,
    binary: &PolicyBinary,
    asks: OpsRequirements,
    out: Output,
) -> Result<(), Failure> {
    let policy = binary.policy()?;
    let schema = policy.schema()?;
    let prospect = preview::swap(pins, &policy, !asks.no_carry)?;
    let SwapPreview { layout, running, slot, queues, reattach, attached, from, generation, evicts } =
        prospect;
    let to = name(binary)?;
    if let Some(why) = reattach.as_ref().filter(|_| attached && !asks.may_reattach) {
        return Err(Error::NeedsReattach { policy: to, why: why.clone() }.into());
    }
    if reattach.is_some() {
        requirements::check_attach()?;
    }
    let plan_it = if asks.no_carry { plan_report_anew } else { plan_report };
    let plan = PlanReport { queues, ..plan_it(&layout, Some(running.into()), &schema, slot.into()) };
    let would = Would { dry_run: true, would, from, to, generation, evicts, reattach, plan: &plan };
    show(&would, &Obstacles::of(&policy)?, true, out)
}

fn name(binary: &PolicyBinary) -> Result<String, Failure> {
    let info = binary.info()?;
    Ok(format!("{} {}", info.name, info.version).trim_end().to_string())
}

fn show(would: &Would<'_>, obstacles: &Obstacles, all: bool, out: Output) -> Result<(), Failure> {
    let text = |out: &mut String| {
        let from = would.from.as_ref().map(|from| format!(" for {from}")).unwrap_or_default();
        line!(out, "would {} {}{from}, as generation {}", would.would, would.to, would.generation);
        plan::text(out, would.plan);
        reattached(out, would.reattach.as_deref());
        if let Some(goes) = &would.evicts {
            line!(out, "  {goes} would have to go from its slot: no rollback could go to it any more");
        }
        if !all {
            line!(out, "  the snapshot is not looked at");
        }
        line!(out, "{NOTHING}");
    };
    plan::show_or_refuse(would, text, would.plan, obstacles, out)
}

fn reattached(out: &mut String, why: Option<&str>) {
    if let Some(why) = why {
        line!(out, "  by a reattach: {why}");
        line!(out, "  the price of it: {PRICE}");
    }
}

/// A rollback that would be.
#[derive(Serialize)]
struct WouldRollBack<'a> {
    dry_run: bool,
    would: &'static str,
    #[serde(flatten)]
    prospect: &'a RollbackPreview,
}

pub fn rollback(pins: &Pins, args: &RollbackArgs, out: Output) -> Result<(), Failure> {
    let back = preview::rollback(pins, args.aim())?;
    if let Some(why) = back.reattach.as_ref().filter(|_| back.attached && !args.reattach.allow_reattach) {
        return Err(Error::NeedsReattach { policy: back.to, why: why.clone() }.into());
    }
    if back.reattach.is_some() {
        requirements::check_attach()?;
    }
    out.show(&WouldRollBack { dry_run: true, would: "roll back", prospect: &back }, |out| {
        let from = back.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        line!(
            out,
            "would roll back{from} to {} of generation {}, as generation {}",
            back.to,
            back.back_to,
            back.generation
        );
        output::rows(out, &back.columns);
        output::queues(out, &back.queues);
        reattached(out, back.reattach.as_deref());
        if back.held {
            line!(out, "  no policy would run while the newer one's own inverse brings the records back");
        }
        line!(out, "{NOTHING}");
    });
    Ok(())
}

/// A stop that would be.
#[derive(Serialize)]
struct WouldStop {
    dry_run: bool,
    would: &'static str,
    policy: Option<String>,
    /// The queues that go, with the tasks that wait there, which the kernel's default scheduler takes.
    queues: Vec<QueueRow>,
}

pub fn stop(pins: &Pins, out: Output) -> Result<(), Failure> {
    if pins.is_empty() {
        return Err(Error::NothingRunning.into());
    }
    let host = Host::running(pins).ok();
    let info = host.as_ref().and_then(|host| host.registry.slot(host.data.active().slot));
    let queues = info.map_or(Vec::new(), |info| queue_rows(&info.schema.queues, &[], &[]));
    let policy = info.map(SlotInfo::title);
    out.show(&WouldStop { dry_run: true, would: "stop", policy: policy.clone(), queues }, |out| {
        match &policy {
            Some(policy) => {
                line!(out, "would stop {policy}: tasks would go to the kernel's default scheduler");
                line!(out, "  what it knows would be forgotten; `scx-upgrade snapshot save` keeps it");
            }
            None => line!(out, "would remove what an earlier host left"),
        }
        line!(out, "{NOTHING}");
    });
    Ok(())
}

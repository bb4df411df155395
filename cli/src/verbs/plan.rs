//! `scx-upgrade plan`: what a swap to a policy would do to each column and queue, without doing it.

use std::fmt::Write as _;
use std::path::Path;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::candidate::obstacles::Obstacle;
use scx_upgrade_engine::candidate::obstacles::Obstacles;
use scx_upgrade_engine::error::PRICE;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::transition::preview;
use scx_upgrade_engine::transition::preview::SwapPreview;
use serde::Serialize;
use state_migrate::PlanReport;
use state_migrate::plan_report;

use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;

/// The plan, and whether it can be done in place.
#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a PlanReport,
    /// The parts of the policy that have no effect in the host.
    obstacles: &'a [Obstacle],
    /// Why it takes a reattach; null if it does not.
    reattach: Option<&'a str>,
}

pub fn plan(pins: &Pins, binary: &Path, out: Output) -> Result<(), Failure> {
    // What the kernel took off is attached first, so that there is something to plan against.
    if let Err(off @ (Error::Ejected { .. } | Error::Detached { .. })) = Host::running(pins) {
        return Err(off.into());
    }
    let policy = PolicyBinary::open(binary)?.policy()?;
    let schema = policy.schema()?;
    let SwapPreview { layout, running, slot, queues, reattach, .. } = preview::swap(pins, &policy, true)?;
    let report = PlanReport { queues, ..plan_report(&layout, Some(running.into()), &schema, slot.into()) };
    show(&report, &Obstacles::of(&policy)?, reattach.as_deref(), out)
}

/// Show a plan. One that refuses something is a failure, and so is a policy that the host refuses.
pub fn show(
    plan: &PlanReport,
    obstacles: &Obstacles,
    reattach: Option<&str>,
    out: Output,
) -> Result<(), Failure> {
    let text = |out: &mut String| {
        text(out, plan);
        // What is refused is the error.
        for obstacle in obstacles.all().iter().filter(|o| !o.refused) {
            line!(out, "  warning    {obstacle}");
        }
        if let Some(why) = reattach {
            line!(out, "  needs --allow-reattach: {why}");
            line!(out, "  the price of it: {PRICE}");
        }
    };
    show_or_refuse(&Planned { plan, obstacles: obstacles.all(), reattach }, text, plan, obstacles, out)
}

/// Show a document that has a plan. Where the plan or the host refuses something, that is a failure with the document.
pub fn show_or_refuse(
    document: &impl Serialize,
    text: impl FnOnce(&mut String),
    plan: &PlanReport,
    obstacles: &Obstacles,
    out: Output,
) -> Result<(), Failure> {
    let refusal = match plan.refused.len() {
        0 => obstacles.refuse().err().map(Failure::from),
        n => {
            let message = format!("the state cannot be carried: {n} refused, see above");
            Some(Failure::new(Exit::Incompatible, message))
        }
    };
    match refusal {
        None => {
            out.show(document, text);
            Ok(())
        }
        Some(failure) => Err(out.show_failed(document, text, failure)),
    }
}

/// Its lines.
pub fn text(out: &mut String, report: &PlanReport) {
    output::rows(out, &report.rows);
    output::queues(out, &report.queues);
    for refusal in report.refused.iter().filter(|r| r.columns.is_empty()) {
        line!(out, "  refused    {}", refusal.reason);
    }
    for c in &report.capacity {
        line!(
            out,
            "  {} record of {} bytes: {} in use, {} more needed, {} free before",
            c.scope,
            c.record_size,
            c.used,
            c.needed,
            c.free
        );
    }
}

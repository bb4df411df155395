//! `scx-upgrade plan`: what a swap to a policy would do to each column and queue, without doing it. `scx-upgrade check`: the same
//! between two binaries, on any machine.

use std::path::Path;

use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::error::PRICE;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::reattach;
use scx_upgrade_sdk::reattach::Prospect;
use scx_upgrade_sdk::record_sizes;
use serde::Serialize;
use state_migrate::PlanReport;
use state_migrate::plan_report;

use crate::failure::Failure;
use crate::output;

/// The plan, and whether it can be done in place.
#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a PlanReport,
    /// Why it takes a reattach; null if it does not.
    reattach: Option<&'a str>,
}

pub fn plan(pins: &Pins, binary: &Path, json: bool) -> Result<(), Failure> {
    let policy = Policy::from_binary(binary)?;
    let schema = policy.schema()?;
    let Prospect { layout, running, slot, queues, reattach } = reattach::prospect(pins, &policy)?;
    let report = PlanReport { queues, ..plan_report(&layout, Some(running.into()), &schema, slot.into()) };
    show(&report, reattach.as_deref(), json)
}

pub fn check(old: &Path, new: &Path, json: bool) -> Result<(), Failure> {
    let old = Policy::from_binary(old)?.schema()?;
    let new = Policy::from_binary(new)?.schema()?;
    show(&state_migrate::check(&old, &new, &record_sizes()), None, json)
}

fn show(plan: &PlanReport, reattach: Option<&str>, json: bool) -> Result<(), Failure> {
    if json {
        output::json(&Planned { plan, reattach });
    } else {
        text(plan);
        if let Some(why) = reattach {
            println!("  needs --allow-reattach: {why}");
            println!("  the price of it: {PRICE}");
        }
    }
    match plan.refused.len() {
        0 => Ok(()),
        n => Err(Failure::new(4, format!("the state cannot be carried: {n} refused, see above"))),
    }
}

fn text(report: &PlanReport) {
    output::rows(&report.rows);
    output::queues(&report.queues);
    for refusal in report.refused.iter().filter(|r| r.columns.is_empty()) {
        println!("  refused    {}", refusal.reason);
    }
    for c in &report.capacity {
        println!(
            "  {} record of {} bytes: {} in use, {} more needed, {} free before",
            c.scope, c.record_size, c.used, c.needed, c.free
        );
    }
}

//! `scx-upgrade plan`: what a swap to a policy would do to each column and queue, without doing it. `scx-upgrade check`: the same
//! between two binaries, on any machine.

use std::path::Path;

use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::host::Host;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::record_sizes;
use state_migrate::PlanReport;
use state_migrate::plan_report;

use crate::failure::Failure;
use crate::output;

pub fn plan(pins: &Pins, binary: &Path, json: bool) -> Result<(), Failure> {
    let host = Host::running(pins)?;
    let active = host.data.active().slot;
    let slot = host.registry.choose_slot(active);
    let mut books = host.registry.clone();
    books.evict(slot);
    let schema = Policy::from_binary(binary)?.schema()?;
    let report = PlanReport {
        queues: books.queue_rows(active, &schema.queues),
        ..plan_report(&books.layout, Some(active.into()), &schema, slot.into())
    };
    show(&report, json)
}

pub fn check(old: &Path, new: &Path, json: bool) -> Result<(), Failure> {
    let old = Policy::from_binary(old)?.schema()?;
    let new = Policy::from_binary(new)?.schema()?;
    show(&state_migrate::check(&old, &new, &record_sizes()), json)
}

fn show(report: &PlanReport, json: bool) -> Result<(), Failure> {
    if json {
        output::json(report);
    } else {
        text(report);
    }
    match report.refused.len() {
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

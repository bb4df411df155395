//! `scx-upgrade list`: the policies that are loaded, and which of them a rollback can go to.

use std::fmt::Write as _;

use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::status;
use scx_upgrade_engine::observe::status::SlotStatus;

use crate::clock;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::line;

pub fn list(pins: &Pins, out: Output) -> Result<(), Failure> {
    // A status of nothing is no error, a list of nothing is.
    Host::running(pins)?;
    let mut slots = status::status(pins)?.slots;
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.generation));
    out.show(&slots, |out| text(out, &slots));
    Ok(())
}

fn text(out: &mut String, slots: &[SlotStatus]) {
    let names: Vec<_> = slots.iter().map(|s| format!("{} {}", s.policy, s.version)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max("policy".len());
    line!(out, "generation  slot  {:<width$}  {:<19}  what", "policy", "since");
    for (slot, name) in slots.iter().zip(&names) {
        let what = match (slot.active, slot.rollback) {
            (true, _) => "running".to_string(),
            (_, true) => "rollback goes here".to_string(),
            _ => format!("rollback --to {}", slot.generation),
        };
        let since = clock::local(slot.since);
        line!(out, "{:>10}  {:>4}  {name:<width$}  {since}  {what}", slot.generation, slot.slot);
    }
}

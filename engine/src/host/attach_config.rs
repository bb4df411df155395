//! The attach configuration (`terms`): the ops flags and ops that the kernel reads once, when the host is attached. A policy runs in
//! a host whose terms suit it; for others the host is attached again, see `reattach.rs`.
//!
//! A *lean* host does without what its policies do not use of what costs instructions at each context switch: an op that the
//! kernel finds defined it calls, by way of a trampoline, and a flag that the policy lacks the host has to emulate. What
//! it does without only ever becomes less, with each reattach for a policy that uses it, so that terms on which a policy
//! was once loaded suit it for as long as it is loaded.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::host::abi;
use crate::kernel::btf::KernelBtf;

/// Ops that a host can do without: the kernel calls each of them at context switches, ticks or wake-ups, does by itself
/// what the host does for a policy that lacks it, and gives no task or cgroup to the scheduler by it.
const HOT_OPS: [&str; 9] =
    ["select_cpu", "dequeue", "tick", "runnable", "running", "stopping", "quiescent", "yield", "update_idle"];

/// Flags that the host sets unless it is lean; a policy without one is emulated. See `host_enqueue()`.
pub(crate) const EMULATED: [(&str, u8); 2] = [
    ("SCX_OPS_ENQ_EXITING", abi::LACKS_ENQ_EXITING),
    ("SCX_OPS_ENQ_MIGRATION_DISABLED", abi::LACKS_ENQ_MIGRATION_DISABLED),
];
/// A flag that changes nothing for a policy in the host, which keeps the built-in idle masks anyway.
const KEEP_BUILTIN_IDLE: &str = "SCX_OPS_KEEP_BUILTIN_IDLE";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachConfig {
    /// The ops flags, beyond those that every host can have. A policy has to ask for the same.
    #[serde(default)]
    pub flags: u64,
    /// Names of the ops and flags that this host does without; empty unless it is lean.
    #[serde(default)]
    pub spared: BTreeSet<String>,
}

/// What a policy asks of a host's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpsRequirements {
    /// The ops flags, beyond those that every host can have.
    pub flags: u64,
    /// Names of its ops, and of its flags among those that every host can have.
    pub uses: BTreeSet<String>,
}

impl AttachConfig {
    /// Of a host with a first policy that asks for this; `lean`: that does without what the policy does not use.
    pub(crate) fn first(asks: &OpsRequirements, lean: bool, kernel: &KernelBtf) -> AttachConfig {
        let ops = HOT_OPS.into_iter().filter(|op| kernel.has_op(op));
        let all = ops.chain(EMULATED.iter().map(|(flag, _)| *flag)).filter(|_| lean);
        let spared = all.filter(|name| !asks.uses.contains(*name)).map(str::to_string).collect();
        AttachConfig { flags: asks.flags, spared }
    }

    /// Can a policy that asks for this run on them?
    pub(crate) fn satisfies(&self, asks: &OpsRequirements) -> bool {
        self.flags == asks.flags && self.spared.is_disjoint(&asks.uses)
    }

    /// Those of a host that is attached again for it.
    pub(crate) fn extended_for(&self, asks: &OpsRequirements) -> AttachConfig {
        AttachConfig { flags: asks.flags, spared: self.spared.difference(&asks.uses).cloned().collect() }
    }

    /// Why they do not suit.
    pub(crate) fn why_not(&self, asks: &OpsRequirements, kernel: &KernelBtf) -> String {
        let mut why = Vec::new();
        let (wants, has) = (asks.flags & !self.flags, self.flags & !asks.flags);
        let missing: Vec<&str> = self.spared.intersection(&asks.uses).map(String::as_str).collect();
        if !missing.is_empty() {
            why.push(format!(
                "it uses {}, which the host does without (`run --minimal-ops`)",
                missing.join(", ")
            ));
        }
        if wants != 0 {
            why.push(format!("it asks for {}, which the host lacks", kernel.flag_names(wants)));
        }
        if has != 0 {
            why.push(format!("the host has {}, which it does not ask for", kernel.flag_names(has)));
        }
        let what = if missing.is_empty() { "these ops flags" } else { "ops and their flags" };
        let why = why.join(", and ");
        format!("{why}, and the kernel reads {what} once, when a scheduler is attached")
    }

    /// The ops flags that a host on these terms is attached with.
    pub(crate) fn host_flags(&self, kernel: &KernelBtf) -> u64 {
        let spared = EMULATED.iter().filter(|(flag, _)| self.spared.contains(*flag));
        let spared = spared.fold(0, |flags, (flag, _)| flags | kernel.scx(flag));
        self.flags | (host_flags(kernel) & !spared)
    }

    /// Does the host emulate for a policy the lack of a flag that it has?
    pub(crate) fn emulates(&self) -> bool {
        EMULATED.iter().any(|(flag, _)| !self.spared.contains(*flag))
    }
}

/// The flags that every host can have: a policy that lacks one notices nothing.
pub(crate) fn host_flags(kernel: &KernelBtf) -> u64 {
    EMULATED
        .iter()
        .map(|(name, _)| name)
        .chain([&KEEP_BUILTIN_IDLE])
        .fold(0, |flags, name| flags | kernel.scx(name))
}

/// What a policy uses of what a lean host may do without, by name: its ops, and the flags that it does not lack.
pub(crate) fn uses<'a>(ops: impl Iterator<Item = &'a String>, lacks: u8) -> BTreeSet<String> {
    let flags = EMULATED.iter().filter(|(_, bit)| lacks & bit == 0);
    ops.cloned().chain(flags.map(|(flag, _)| (*flag).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(flags: u64, uses: &[&str]) -> OpsRequirements {
        OpsRequirements { flags, uses: uses.iter().map(|name| (*name).to_string()).collect() }
    }

    fn lean(spared: &[&str]) -> AttachConfig {
        AttachConfig { flags: 0, spared: spared.iter().map(|name| (*name).to_string()).collect() }
    }

    #[test]
    fn a_lean_host_suits_who_uses_nothing_of_what_it_spares() {
        let terms = lean(&["runnable", "quiescent", "SCX_OPS_ENQ_EXITING"]);
        assert!(terms.satisfies(&asks(0, &["enqueue", "running"])));
        assert!(!terms.satisfies(&asks(0, &["enqueue", "runnable"])));
        assert!(!terms.satisfies(&asks(0, &["SCX_OPS_ENQ_EXITING"])));
        assert!(!terms.satisfies(&asks(2, &["enqueue"])));
        assert!(AttachConfig::default().satisfies(&asks(0, &["enqueue", "runnable", "SCX_OPS_ENQ_EXITING"])));
    }

    #[test]
    fn what_it_spares_only_ever_becomes_less() {
        let first = lean(&["runnable", "quiescent", "tick"]);
        let (one, other) = (asks(0, &["tick", "enqueue"]), asks(0, &["quiescent"]));
        let second = first.extended_for(&one);
        assert_eq!(second, lean(&["runnable", "quiescent"]));
        let third = second.extended_for(&other);
        assert_eq!(third, lean(&["runnable"]));
        assert!(third.satisfies(&one) && third.satisfies(&other), "both run on what it came to");
        assert_eq!(third.extended_for(&one), third);
    }

    #[test]
    fn the_flags_are_those_of_whom_it_was_attached_for() {
        assert_eq!(lean(&["tick"]).extended_for(&asks(6, &[])), AttachConfig { flags: 6, ..lean(&["tick"]) });
        assert!(lean(&["tick", "SCX_OPS_ENQ_EXITING"]).emulates(), "the other flag's lack");
        assert!(!lean(&["SCX_OPS_ENQ_EXITING", "SCX_OPS_ENQ_MIGRATION_DISABLED"]).emulates());
        assert!(AttachConfig::default().emulates());
    }

    #[test]
    fn a_registry_from_before_there_were_terms_is_that_of_a_full_host() {
        let terms: AttachConfig = serde_json::from_str(r#"{"flags": 4}"#).unwrap();
        assert_eq!(terms, AttachConfig { flags: 4, spared: BTreeSet::new() });
    }
}

//! A policy that the kernel holds, verified, and that does not run yet.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use libbpf_rs::Object;
use state_migrate::Layout;
use state_migrate::Scope;
use state_migrate::ScopeLayout;

use crate::host::attach_config::OpsRequirements;
use crate::kernel::ops::Ops;
use crate::kernel::variables::Variables;

/// Where columns stand in the records of each scope, by name.
pub(crate) type Places = BTreeMap<Scope, BTreeMap<String, Range<usize>>>;

/// A policy in the kernel, verified, not running.
#[derive(Debug)]
pub struct Loaded<O = Object> {
    pub(crate) object: O,
    pub(crate) ops: Ops,
    pub(crate) lacks: u8,
    /// What it asks of its host's terms.
    pub(crate) asks: OpsRequirements,
    /// Its number among the loads into one host; 0 without a host.
    pub(crate) load: u64,
    /// Names of its own maps that lose what they do with user space's last reference, by which they are pinned.
    pub(crate) held: Vec<String>,
    /// Where its global variables are.
    pub(crate) variables: Variables,
    /// Where its columns stand in the records of each scope, in bytes.
    pub(crate) places: Places,
    /// What of it has no effect here.
    pub(crate) warnings: Vec<String>,
}

impl Loaded {
    /// Descriptor of the program behind an op.
    pub(crate) fn program(&self, op: &str) -> Option<BorrowedFd<'_>> {
        let name = self.ops.programs.get(op)?;
        let program = self.object.progs().find(|p| p.name().to_string_lossy() == name.as_str())?;
        // SAFETY: the descriptor belongs to `self.object`, which the result borrows.
        Some(unsafe { BorrowedFd::borrow_raw(program.as_fd().as_raw_fd()) })
    }
}

/// Where the columns of the policy in `slot` stand.
pub(crate) fn places(layout: &Layout, slot: u8) -> Places {
    let of = |scope: &ScopeLayout| {
        let own = scope.columns.iter().filter(|c| c.slots.contains(&u32::from(slot)));
        own.map(|c| (c.name.clone(), c.offset as usize..(c.offset + c.ty.size()) as usize)).collect()
    };
    layout.scopes.iter().map(|(scope, columns)| (*scope, of(columns))).collect()
}

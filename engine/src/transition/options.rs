//! How a change is asked for.

use crate::transition::frontend::Waiting;
use std::path::Path;

/// How a policy is to be put in charge.
#[derive(Debug, Clone, Copy, Default)]
pub struct SwapOptions<'a> {
    /// Also where that takes a reattach.
    pub may_reattach: bool,
    /// A snapshot to begin with, for a host that is started.
    pub restore: Option<&'a Path>,
    /// Also where a scheduler runs that is not of this project: that is taken off.
    pub replace: bool,
    /// A host that is started is to do without what the policy does not use: see [`crate::host::attach_config`].
    pub minimal_ops: bool,
    /// Carry nothing: the policy's state starts with its defaults.
    pub no_carry: bool,
    /// Only if it comes to this; none: whatever it comes to.
    pub only: Option<ExpectedAction>,
    /// The process that waits to become the frontend.
    pub frontend: Option<&'a Waiting>,
}

/// What putting a policy in charge may come to. Who asks for one is not to get the other, because someone else was
/// faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedAction {
    /// A start, or attaching again where the kernel took the host off.
    Run,
    /// A swap, or attaching again where the kernel took the host off.
    Swap,
}

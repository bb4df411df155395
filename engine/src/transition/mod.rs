//! The changes to what runs: start, swap, rollback, recovery, reattach.

pub mod commit;
pub mod effect;
pub mod finish;
pub mod foreign_scheduler;
pub mod frontend;
#[cfg(test)]
mod histories;
pub mod interrupt;
pub(crate) mod kernel;
pub mod method;
pub mod options;
pub mod plan;
pub mod prepare;
pub mod preview;
pub mod quiesce;
pub mod reattach;
pub mod recover;
mod running_kernel;
pub mod snapshot;
pub mod start;
pub mod stop;
pub mod swap;
pub mod take_over;
pub mod unit;

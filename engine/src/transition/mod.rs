//! The changes to what runs: start, swap, rollback, recovery, reattach.

pub mod effect;
pub mod foreign_scheduler;
pub mod frontend;
pub mod interrupt;
pub mod preview;
pub mod quiesce;
pub mod reattach;
pub mod recover;
pub mod report;
pub mod start;
pub mod stop;
pub mod swap;
pub mod take_over;
pub mod unit;

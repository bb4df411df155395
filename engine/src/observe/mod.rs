//! What runs and ran: status, history, the guard, ejections, snapshots.

pub mod counters;
pub mod doctor;
pub mod ejection;
pub mod ejection_trace;
pub mod guard;
pub mod history;
pub mod last_good;
pub mod report;
pub mod snapshot;
pub mod status;

//! Files, priorities, clocks: what the operating system offers besides scheduling.

pub mod affinity;
pub mod bounded_read;
pub mod clock;
pub mod identity;
pub mod logger;
pub mod priority;
pub mod private_dir;
pub mod realtime;

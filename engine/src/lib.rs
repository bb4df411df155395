//! Replaces the running sched_ext scheduler in place.
//!
//! The rooms, each of which uses only those below it:
//!
//! - [`transition`]: the changes: start, swap, rollback, recovery, reattach. The swap and its store are in [`transition::swap`];
//! - [`observe`]: what runs and ran: status, history, guard, ejections, snapshots;
//! - [`candidate`]: what can be swapped in: a policy's object, its obstacles, and how it is loaded;
//! - [`host`]: the resident host: pins, shared memory, registry, records, queues, the sweep;
//! - [`kernel`]: what the kernel says and offers: sysfs, BTF, BPF system calls, the machine's limits;
//! - [`os`]: files, priorities, clocks.

pub mod candidate;
pub mod error;
pub mod exit;
pub mod host;
pub mod kernel;
pub mod observe;
pub mod os;
pub mod transition;

pub use candidate::policy::Policy;
pub use error::Error;
pub use error::Result;
pub use host::scopes::record_sizes;
pub use state_migrate::Scope;

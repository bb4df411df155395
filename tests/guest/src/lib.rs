//! What runs inside the lab's virtual machine, under a sched_ext scheduler: things that put a scheduler to
//! work and things that watch it.
//!
//! - [`load`]: tens of thousands of live threads that sleep, compute, talk, fork and spawn.
//! - [`probe`]: how late a thread that asked to be woken is woken.
//! - [`programs`]: BPF programs of our own on the host's maps.
//! - [`requests`]: how long a request to another thread takes.
//! - [`reader`]: every task's record, read by a BPF program that shares no code with host and policies.
//! - [`verify`]: whether a swap carried those records.
//! - [`demo`]: swap, rollback and the kernel's own way under load, in one run, with a report.
//! - [`pairs`]: who runs beside whom on the CPUs of a core.
//! - [`sweep`]: what a sweep costs, beside the bare walk over all tasks.
//! - [`switch`]: from one scheduler to another as scx_loader does it, beside a swap, under load, with a report.
//! - [`machine`]: what machine this is.
//! - [`tasks`]: what `/proc` and `/sys/kernel/sched_ext` say.
//!
//! The machine is emulated, 10 to 30 times slower than hardware, and has two CPUs: whatever measures here must
//! itself cost little.

pub mod clock;
pub mod demo;
pub mod load;
pub mod machine;
pub mod pairs;
pub mod probe;
pub mod programs;
pub mod reader;
pub mod requests;
pub mod sweep;
pub mod switch;
pub mod tasks;
pub mod verify;

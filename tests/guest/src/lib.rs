//! What runs inside the lab's virtual machine, under a sched_ext scheduler: things that put a scheduler to
//! work and things that watch it.
//!
//! - [`load`]: tens of thousands of live threads that sleep, compute, talk, fork and spawn.
//! - [`probe`]: how late a thread that asked to be woken is woken.
//! - [`tasks`]: what `/proc` and `/sys/kernel/sched_ext` say.
//!
//! The machine is emulated, 10 to 30 times slower than hardware, and has two CPUs: whatever measures here must
//! itself cost little.

pub mod clock;
pub mod load;
pub mod probe;
pub mod tasks;

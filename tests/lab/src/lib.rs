//! The lab: a virtual machine, emulated in software, that runs a kernel with sched_ext.
//!
//! Few machines at hand run such a kernel, so tests, benchmarks and the demo boot one under QEMU. This library does
//! all of that from a Debian machine: it installs what is missing ([`setup`]), gets a kernel ([`kernel`]), packs a
//! program with its libraries into a file system for the guest ([`initramfs`]), boots, and brings back the output,
//! the exit status and the files that the program left ([`vm`]).
//!
//! It is pure Rust without libbpf, because it is what installs the libraries that the other crates need to build.
//!
//! ```no_run
//! # use std::{io::Write, time::Duration};
//! # fn main() -> anyhow::Result<()> {
//! let kernel = lab::kernel::obtain(&lab::cache::folder()?, Some("7.0"))?;
//! let vm = lab::vm::Vm::new(kernel, "target/release/lab-init");
//! let job = lab::vm::Job::program("target/release/probe", ["--seconds", "3"])?;
//! let outcome = vm.run(&job, |bytes| drop(std::io::stdout().write_all(bytes)))?;
//! println!("exit status {}, files in {}", outcome.status, outcome.files.display());
//! # Ok(())
//! # }
//! ```

pub mod apt;
pub mod cache;
pub mod console;
pub mod cpio;
pub mod elf;
pub mod initramfs;
pub mod kernel;
pub mod protocol;
mod qemu;
mod run_dir;
pub mod setup;
pub mod vm;

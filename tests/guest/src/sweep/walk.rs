//! The walk by itself: `src/bpf/walk.bpf.c`.

use anyhow::{Result, ensure};
use plain::Plain;
use scx_upgrade_engine::host::Host;

use super::Walked;
use crate::programs::Programs;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/walk.bpf.o"));

/// `struct walk_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Args {
    tasks: u64,
    records: u64,
}

// SAFETY: two numbers, without padding, and any bytes are valid.
unsafe impl Plain for Args {}

/// The programs, loaded, sharing the host's task records.
#[derive(Debug)]
pub struct Walk {
    programs: Programs,
}

impl Walk {
    /// Load them.
    ///
    /// # Errors
    /// Not root, or a kernel that lacks the iterators.
    pub fn open(host: &Host) -> Result<Self> {
        Ok(Self { programs: Programs::load(OBJECT, host)? })
    }

    /// Over all tasks, doing nothing.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn bare(&self) -> Result<Walked> {
        self.run("walk_bare").map(|(walked, _)| walked)
    }

    /// Over all tasks, looking up the record of each.
    ///
    /// # Errors
    /// The program cannot be run, or hardly a task has a record: then it did not do what it is to cost.
    pub fn records(&self) -> Result<Walked> {
        let (walked, args) = self.run("walk_records")?;
        ensure!(
            args.records * 10 >= args.tasks * 9,
            "only {} of {} tasks have a record",
            args.records,
            args.tasks
        );
        Ok(walked)
    }

    fn run(&self, name: &str) -> Result<(Walked, Args)> {
        let mut args = Args::default();
        let ns = self.programs.run(name, &mut args)?;
        Ok((Walked { tasks: args.tasks, ns }, args))
    }
}

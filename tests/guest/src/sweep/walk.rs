//! The walk by itself: `src/bpf/walk.bpf.c`.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, ensure};
use libbpf_rs::{Object, ObjectBuilder, ProgramInput};
use plain::Plain;
use scx_upgrade_sdk::host::Host;
use state_migrate::Scope;

use super::Walked;
use crate::clock::now_ns;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/walk.bpf.o"));
const RECORDS: &str = "scx_task_records";
/// See `reader`.
const SCX_PROBE: &str = "scx_lib_init_probe";

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
    object: Object,
}

impl Walk {
    /// Load them.
    ///
    /// # Errors
    /// Not root, or a kernel that lacks the iterators.
    pub fn open(host: &Host) -> Result<Self> {
        let mut open = ObjectBuilder::default().name("walk")?.open_memory(OBJECT)?;
        for mut program in open.progs_mut().filter(|program| program.name() == SCX_PROBE) {
            program.set_autoload(false);
        }
        for mut map in open.maps_mut().filter(|map| map.name() == RECORDS) {
            let records = host.records(Scope::Task).context("the host has no task records")?;
            map.reuse_fd(records.as_fd()).context("sharing the host's records")?;
        }
        Ok(Self { object: open.load().context("loading the walk")? })
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
        let program = self.object.progs_mut().find(|p| p.name() == name);
        let program = program.with_context(|| format!("there is no program {name}"))?;
        let mut args = Args::default();
        // SAFETY: `Args` has no padding.
        let context = unsafe { plain::as_mut_bytes(&mut args) };
        let input = ProgramInput { context_in: Some(context), ..ProgramInput::default() };
        let begin = now_ns();
        program.test_run(input).with_context(|| format!("running {name}"))?;
        let ns = now_ns() - begin;
        Ok((Walked { tasks: args.tasks, ns }, args))
    }
}

//! SYSCALL programs of our own, on the host's maps.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use libbpf_rs::{Object, ObjectBuilder, ProgramInput};
use plain::Plain;
use scx_upgrade_sdk::host::Host;
use state_migrate::Scope;

use crate::clock::now_ns;

/// The scx headers put this program into every object; it wants to be attached, and nothing here needs it.
const SCX_PROBE: &str = "scx_lib_init_probe";

/// Loaded.
#[derive(Debug)]
pub struct Programs {
    object: Object,
}

impl Programs {
    /// Load an object, its task records and shared memory those of the host.
    ///
    /// # Errors
    /// Not root, or a kernel that does not take it.
    pub fn load(object: &[u8], host: &Host) -> Result<Self> {
        let mut open = ObjectBuilder::default().name("guest")?.open_memory(object)?;
        for mut program in open.progs_mut().filter(|program| program.name() == SCX_PROBE) {
            program.set_autoload(false);
        }
        let records = host.records(Scope::Task).context("the host has no task records")?;
        let shared = [("scxu_task_records", records), (".data.scxu_host", host.memory())];
        for mut map in open.maps_mut() {
            if let Some((_, theirs)) = shared.iter().find(|(name, _)| map.name() == *name) {
                map.reuse_fd(theirs.as_fd()).context("sharing the host's maps")?;
            }
        }
        Ok(Self { object: open.load().context("loading the programs")? })
    }

    /// Run one with `args`, which it may change; how long it took, ns.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run<T: Plain>(&self, name: &str, args: &mut T) -> Result<u64> {
        let program = self.object.progs_mut().find(|p| p.name() == name);
        let program = program.with_context(|| format!("there is no program {name}"))?;
        // SAFETY: Plain types have no padding and take any bytes.
        let context = unsafe { plain::as_mut_bytes(args) };
        let input = ProgramInput { context_in: Some(context), ..ProgramInput::default() };
        let begin = now_ns();
        program.test_run(input).with_context(|| format!("running {name}"))?;
        Ok(now_ns() - begin)
    }
}

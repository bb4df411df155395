//! The four scopes of state: for each the host has a map of records, an image that new ones start as, plans, and a
//! program that sweeps. Everything else treats them alike.

use std::mem::offset_of;

use state_migrate::HEADER;
use state_migrate::Layout;
use state_migrate::Scope;

use crate::host::abi;
use crate::host::abi::HostData;

/// What the host has for one scope.
#[derive(Debug)]
pub struct ScopeParts {
    /// The scope.
    pub scope: Scope,
    /// Index into `HostData::plans`.
    pub index: usize,
    /// The map of its records.
    pub map: &'static str,
    /// The host's program that brings all of them up to date.
    pub sweep: &'static str,
    /// Bytes of a record behind its header.
    pub data: usize,
    /// Where `HostData` has the image of a new record.
    pub image: usize,
}

/// The program that sweeps tasks by the task table.
pub(crate) const SWEEP_TASKS: &str = "scxu_sweep_tasks";
/// The program that sweeps tasks by the kernel's lists.
pub(crate) const SWEEP_UNTRACKED: &str = "scxu_sweep_untracked";

/// Is this the name of a program that sweeps?
pub(crate) fn sweeps(program: &str) -> bool {
    program == SWEEP_UNTRACKED || SCOPES.iter().any(|s| s.sweep == program)
}

pub(crate) const SCOPES: [ScopeParts; 4] = [
    ScopeParts {
        scope: Scope::Task,
        index: 0,
        map: "scxu_task_records",
        sweep: SWEEP_TASKS,
        data: abi::TASK_DATA,
        image: offset_of!(HostData, task_image),
    },
    ScopeParts {
        scope: Scope::Cgroup,
        index: 1,
        map: "scxu_cgroup_records",
        sweep: "scxu_sweep_cgroups",
        data: abi::CGROUP_DATA,
        image: offset_of!(HostData, cgroup_image),
    },
    ScopeParts {
        scope: Scope::Cpu,
        index: 2,
        map: CPU_MAP,
        sweep: "scxu_sweep_cpus",
        data: abi::CPU_DATA,
        image: offset_of!(HostData, cpu_image),
    },
    ScopeParts {
        scope: Scope::Global,
        index: 3,
        map: ".data.scxu_global",
        sweep: "scxu_sweep_global",
        data: abi::GLOBAL_DATA,
        image: offset_of!(HostData, global_image),
    },
];

/// The map of CPU records, an array with one for each CPU that there can be.
pub(crate) const CPU_MAP: &str = "scxu_cpu_records";

/// The size of a record of each scope, header included, in bytes.
pub fn record_sizes() -> [(Scope, u32); 4] {
    SCOPES.map(|s| (s.scope, HEADER + s.data as u32))
}

/// The size of a scope's record in its map: behind the columns there may be something of the host's own.
pub(crate) fn value_size(scope: &ScopeParts) -> u32 {
    let tail = if scope.scope == Scope::Task { abi::TASK_TAIL } else { 0 };
    HEADER + (scope.data + tail) as u32
}

/// A layout in which nothing stands yet.
pub(crate) fn empty_layout() -> Layout {
    Layout::new(&record_sizes())
}

impl ScopeParts {
    /// What a new record starts as, header left out.
    pub fn image_of(&self, layout: &Layout) -> Vec<u8> {
        layout.image(self.scope).split_off(HEADER as usize)
    }
}

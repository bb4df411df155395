//! The host's own BPF object, compiled into this crate, and how it is made ready to be loaded on this kernel.

use libbpf_rs::OpenObject;
use state_migrate::Btf;
use state_migrate::object as elf;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::attach_config::AttachConfig;
use crate::host::names::FREE_ROWS;
use crate::host::names::TASK_TABLE;
use crate::host::scopes::CPU_MAP;
use crate::kernel::btf::KernelBtf;
use crate::kernel::object;
use crate::kernel::ops::Ops;
use crate::kernel::sysfs;
use crate::kernel::variables::Variables;

/// The host, compiled.
pub const HOST_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/host.bpf.o"));
/// The host's `enqueue` programs: `ENQUEUE` emulates the flags in `EMULATED`; `ENQUEUE_ALL` serves a host that emulates none.
const ENQUEUE: &str = "host_enqueue";
/// See [`ENQUEUE`].
const ENQUEUE_ALL: &str = "host_enqueue_all";
/// The host's program that takes the rows of tasks back that exit, and the kernel's function where that has an op which does.
pub(crate) const TASK_EXITS: &str = "host_task_exits";
/// See [`TASK_EXITS`].
const EXITS_IN_TIME: &str = "sched_ext_dead";
/// What the kernel does where a scheduler has no such op: in each slot whose policy has none.
pub(crate) const ENQUEUE_DEFAULT: &str = "host_enqueue_default";
/// The host's struct_ops map. It has another, for programs that only stand in slots.
pub(crate) const HOST_OPS: &str = "host_ops";
/// A flag with which not every task is on sched_ext that could be.
const SWITCH_PARTIAL: &str = "SCX_OPS_SWITCH_PARTIAL";
/// The host's variable that says whether it has that flag.
const HOST_IS_PARTIAL: &str = "host_is_partial";
/// Map of the forced-idle state of each CPU: see `lib/force_idle.bpf.h`.
const REST_MAP: &str = "scxu_force_idle";

/// Open the host's own object and make it ready to be loaded, to be attached on `terms`: constants filled in, ops taken out
/// that this kernel does not know or that the terms spare.
pub(crate) fn open_host(kernel: &KernelBtf, terms: &AttachConfig) -> Result<OpenObject> {
    let damaged = |e: state_migrate::object::ObjectError| Error::NotAPolicy { why: e.to_string() };
    let btf = Btf::parse(elf::btf_section(HOST_OBJECT).map_err(damaged)?)?;
    let mut open = object::open(HOST_OBJECT, None)?;
    let variables = Variables::of(HOST_OBJECT)?;
    kernel.fill_enums(&mut open, &variables)?;
    let mut ops = Ops::read_of_host(&open, &btf, HOST_OPS)?;
    for op in ops.programs.clone().into_keys().filter(|op| !kernel.has_op(op) || terms.spared.contains(op)) {
        ops.clear(&mut open, &op);
    }
    let unused = if terms.emulates() { ENQUEUE_ALL } else { ENQUEUE };
    if !terms.emulates() {
        ops.set(&mut open, "enqueue", ENQUEUE_ALL);
    }
    let exits_in_time = kernel.has_function(EXITS_IN_TIME);
    for mut program in open.progs_mut() {
        if program.name() == unused || (program.name() == TASK_EXITS && exits_in_time) {
            program.set_autoload(false);
        }
    }
    ops.set_flags(&mut open, terms.host_flags(kernel));
    size_cpu_records(&mut open)?;
    size_task_table(&mut open)?;
    let partial = terms.flags & kernel.scx(SWITCH_PARTIAL) != 0;
    variables.set(&mut open, HOST_IS_PARTIAL, &[partial.into()])?;
    Ok(open)
}

/// A row for each task that there can be.
fn size_task_table(open: &mut OpenObject) -> Result<()> {
    let rows = sysfs::most_tasks();
    for mut map in open.maps_mut().filter(|m| m.name() == TASK_TABLE || m.name() == FREE_ROWS) {
        map.set_max_entries(rows).trying("cannot size a map by tasks")?;
    }
    Ok(())
}

/// One record for each CPU that there can be, and what `lib/force_idle.bpf.h` has for each.
pub(crate) fn size_cpu_records(open: &mut OpenObject) -> Result<()> {
    let cpus = libbpf_rs::num_possible_cpus().trying("cannot count the CPUs")?;
    for mut map in open.maps_mut().filter(|m| m.name() == CPU_MAP || m.name() == REST_MAP) {
        map.set_max_entries(cpus as u32).trying("cannot size a map by CPUs")?;
    }
    Ok(())
}

/// Loads the host.
pub(crate) fn load_host(open: OpenObject) -> Result<libbpf_rs::Object> {
    object::load(open, "the host")
}

//! Open a policy's object and load it, verified, with its state where a layout puts it. Nothing of what runs is
//! touched here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::Object;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::OpenObject;
use libbpf_rs::libbpf_sys;
use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::Layout;
use state_migrate::Scope;
use state_migrate::ScopeLayout;

use crate::abi;
use crate::abi::Active;
use crate::abi::DsqGroup;
use crate::abi::HostData;
use crate::abi::SdkData;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::FREE_ROWS;
use crate::host::HOST_MAP;
use crate::host::TASK_TABLE;
use crate::kernel;
use crate::kernel_btf::KernelBtf;
use crate::libbpf_log;
use crate::obstacles::Obstacles;
use crate::obstacles::Target;
use crate::ops::Ops;
use crate::policy::Inspected;
use crate::policy::Policy;
use crate::queues::family;
use crate::registry::Claimed;
use crate::scopes;
use crate::scopes::CPU_MAP;
use crate::scopes::SCOPES;
use crate::terms::Asks;
use crate::terms::Terms;
use crate::topology::Topology;
use crate::variables;
use crate::variables::Variables;

/// The host, compiled.
pub const HOST_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/host.bpf.o"));

/// The probe that the scx headers put into every object. It wants to be attached, and nothing here needs it.
pub(crate) const SCX_PROBE: &str = "scx_lib_init_probe";
/// Where a policy has its `struct scxu_sdk`.
const SDK_SECTION: &str = ".rodata.scxu_sdk";
/// Ops that only a scheduler attached by itself has.
pub(crate) const DIRECT_OPS: [&str; 2] = ["init", "exit"];
/// Flags that the host sets unless it is lean; a policy without one is emulated. See `host_enqueue()`.
pub(crate) const EMULATED: [(&str, u8); 2] = [
    ("SCX_OPS_ENQ_EXITING", abi::LACKS_ENQ_EXITING),
    ("SCX_OPS_ENQ_MIGRATION_DISABLED", abi::LACKS_ENQ_MIGRATION_DISABLED),
];
/// The host's programs for `enqueue`: the one that emulates those, and the one for a host that has none of them.
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
/// What the host calls that.
const HOST_IS_PARTIAL: &str = "host_is_partial";
/// A flag that changes nothing for a policy in the host, which keeps the built-in idle masks anyway.
const KEEP_BUILTIN_IDLE: &str = "SCX_OPS_KEEP_BUILTIN_IDLE";

/// For each CPU what makes it rest: see `lib/force_idle.bpf.h`.
const REST_MAP: &str = "scxu_force_idle";
/// Types of the kernel's whose work the kernel cancels when user space's last reference to their map goes.
const CANCELLED: [&str; 3] = ["bpf_timer", "bpf_wq", "bpf_task_work"];
/// How deep a map's value is searched for them. The kernel finds them in fewer structs inside each other than this.
const MAX_DEPTH: u32 = 32;

/// A policy in the kernel, verified, not running.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) object: Object,
    pub(crate) ops: Ops,
    pub(crate) lacks: u8,
    /// What it asks of its host's terms.
    pub(crate) asks: Asks,
    /// Its number among the loads into one host; 0 without a host.
    pub(crate) load: u64,
    /// Names of its own maps that lose what they do with user space's last reference: see [`held_maps`].
    pub(crate) held: Vec<String>,
    /// Where its global variables are.
    pub(crate) variables: Variables,
    /// Where its columns stand in the records of each scope, in bytes.
    pub(crate) places: Places,
    /// What of it has no effect here.
    pub(crate) warnings: Vec<String>,
}

/// The terms of the host that a policy is loaded for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum On<'a> {
    /// These: a policy that they do not suit is refused.
    These(&'a Terms),
    /// Whatever the policy asks for: the host is attached, or attached again, for it.
    Any,
}

impl Loaded {
    /// Descriptor of the program behind an op.
    pub(crate) fn program(&self, op: &str) -> Option<BorrowedFd<'_>> {
        let name = self.ops.programs.get(op)?;
        let program = self.object.progs().find(|p| p.name().to_string_lossy() == name.as_str())?;
        // SAFETY: the descriptor belongs to `self.object`, which the result borrows.
        Some(unsafe { BorrowedFd::borrow_raw(program.as_fd().as_raw_fd()) })
    }
}

/// The flags that every host can have: whoever lacks one notices nothing.
pub(crate) fn host_flags(kernel: &KernelBtf) -> u64 {
    EMULATED
        .iter()
        .map(|(name, _)| name)
        .chain([&KEEP_BUILTIN_IDLE])
        .fold(0, |flags, name| flags | kernel.scx(name))
}

/// Open an object of this crate's that is no scheduler.
pub(crate) fn open_tool(object: &'static [u8]) -> Result<OpenObject> {
    open_object(object, None)
}

/// Open a policy's object to look at it.
pub(crate) fn open_object_of(policy: &Policy) -> Result<OpenObject> {
    open_object(policy.object(), None)
}

/// What a policy asks of a host's terms.
///
/// # Errors
/// [`Error::NotAPolicy`], or [`Error::UnknownFlags`].
pub(crate) fn asks_of(policy: &Policy, kernel: &KernelBtf) -> Result<Asks> {
    let open = open_object(policy.object(), None)?;
    asks(&Ops::read(&open, &policy.btf()?)?, kernel)
}

/// Open the host's own object and make it ready to be loaded, to be attached on `terms`: constants filled in, ops taken out
/// that this kernel does not know or that the terms spare.
pub(crate) fn open_host(kernel: &KernelBtf, terms: &Terms) -> Result<OpenObject> {
    let host = Policy::new(HOST_OBJECT, env!("CARGO_PKG_VERSION"));
    let mut open = open_object(host.object(), None)?;
    let variables = Variables::of(HOST_OBJECT)?;
    kernel.fill_enums(&mut open, &variables)?;
    let mut ops = Ops::read_of_host(&open, &host.btf()?, HOST_OPS)?;
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
    size_roster(&mut open)?;
    let partial = terms.flags & kernel.scx(SWITCH_PARTIAL) != 0;
    variables.set(&mut open, HOST_IS_PARTIAL, &[partial.into()])?;
    Ok(open)
}

/// A row for each task that there can be.
fn size_roster(open: &mut OpenObject) -> Result<()> {
    let rows = kernel::most_tasks();
    for mut map in open.maps_mut().filter(|m| m.name() == TASK_TABLE || m.name() == FREE_ROWS) {
        map.set_max_entries(rows).trying("cannot size a map by tasks")?;
    }
    Ok(())
}

/// One record for each CPU that there can be, and what `lib/force_idle.bpf.h` has for each.
fn size_cpu_records(open: &mut OpenObject) -> Result<()> {
    let cpus = libbpf_rs::num_possible_cpus().trying("cannot count the CPUs")?;
    for mut map in open.maps_mut().filter(|m| m.name() == CPU_MAP || m.name() == REST_MAP) {
        map.set_max_entries(cpus as u32).trying("cannot size a map by CPUs")?;
    }
    Ok(())
}

/// Where columns stand in the records of each scope, by name.
pub(crate) type Places = BTreeMap<Scope, BTreeMap<String, Range<usize>>>;

/// Where a policy is loaded to.
#[derive(Debug)]
pub(crate) struct Home<'a> {
    /// Where each column stands.
    pub layout: &'a Layout,
    /// The slot.
    pub slot: u8,
    /// The number of this load, which no other has that any host of this state's had.
    pub load: u64,
    /// DSQ ids in the schema's order.
    pub queues: &'a [u64],
    /// The host's maps of records and shared memory, which become the policy's: name and map.
    pub shared: Vec<(&'static str, &'a MapHandle)>,
    /// The host's terms.
    pub on: On<'a>,
}

/// Load a policy for the host.
pub(crate) fn load_for_host(
    policy: &Policy,
    inspected: &Inspected,
    kernel: &KernelBtf,
    home: &Home<'_>,
) -> Result<Loaded> {
    let btf = augmented_btf(inspected, kernel, home.layout, home.slot)?;
    let mut open = open_policy(policy, inspected, kernel, &btf, home.queues)?;
    let load_at = std::mem::offset_of!(SdkData, load);
    patch(&mut open, SDK_SECTION, load_at, &home.load.to_ne_bytes())?;
    let mut ops = Ops::read(&open, &policy.btf()?)?;
    let obstacles = Obstacles::read(&open, &ops, Target::Host);
    obstacles.refuse()?;
    for op in DIRECT_OPS {
        ops.clear(&mut open, op);
    }
    let mut warnings: Vec<String> = obstacles.warnings().collect();
    warnings.extend(drop_unknown_ops(&mut open, &mut ops, kernel));
    let asks = asks(&ops, kernel)?;
    if let On::These(terms) = home.on
        && !terms.suit(&asks)
    {
        return Err(Error::NeedsReattach { policy: ops.name, why: terms.why_not(&asks, kernel) });
    }
    let lacks = lacks(&ops, kernel);
    size_cpu_records(&mut open)?;
    share(&mut open, &home.shared)?;
    let held = held_maps(&open, &policy.btf()?, &home.shared);
    let object = load(open, &ops)?;
    let places = places(home.layout, home.slot);
    let variables = inspected.variables.clone();
    Ok(Loaded { object, ops, lacks, asks, load: home.load, held, variables, places, warnings })
}

/// Its maps of these names become the host's.
pub(crate) fn share(open: &mut OpenObject, shared: &[(&str, &MapHandle)]) -> Result<()> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, host)) = shared.iter().find(|(n, _)| *n == name) {
            map.reuse_fd(host.as_fd()).trying(format!("cannot share the host's map {name}"))?;
        }
    }
    Ok(())
}

/// Names of a policy's own maps that the kernel clears when user space's last reference to them goes: it cancels the timers and
/// work items in their values, and removes the programs from a program array. They are pinned with the policy's slot, so that
/// they go on without the policy's process.
fn held_maps(open: &OpenObject, btf: &Btf<'_>, shared: &[(&str, &MapHandle)]) -> Vec<String> {
    let own = open.maps().filter(|map| shared.iter().all(|(name, _)| map.name() != *name));
    let held = own.filter(|map| {
        // SAFETY: the pointer is the open map's own.
        let value = unsafe { libbpf_sys::bpf_map__btf_value_type_id(map.as_libbpf_object().as_ptr()) };
        map.map_type() == MapType::ProgArray || is_cancelled(btf, value, MAX_DEPTH)
    });
    held.map(|map| map.name().to_string_lossy().into_owned()).collect()
}

/// Does a value of this type contain what the kernel cancels?
fn is_cancelled(btf: &Btf<'_>, id: u32, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match btf.kind(id) {
        Some(Kind::Struct) if CANCELLED.contains(&btf.name(id)) => true,
        Some(Kind::Struct) => btf.members(id).any(|member| is_cancelled(btf, member.type_id, depth)),
        Some(Kind::Array) => btf.array(id).is_some_and(|array| is_cancelled(btf, array.elem, depth)),
        Some(Kind::Datasec) => btf.datasec_vars(id).any(|var| is_cancelled(btf, var.type_id, depth)),
        Some(Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Var | Kind::TypeTag) => {
            btf.referenced(id).is_some_and(|id| is_cancelled(btf, id, depth))
        }
        _ => false,
    }
}

/// Load those of an object's SYSCALL programs that `wanted` wants, on the host's maps.
pub(crate) fn load_programs(
    object: &[u8],
    shared: &[(&str, &MapHandle)],
    wanted: impl Fn(&str) -> bool,
) -> Result<Object> {
    let mut open = open_object(object, None)?;
    share(&mut open, shared)?;
    for mut program in open.progs_mut() {
        let wants = wanted(&program.name().to_string_lossy());
        program.set_autoload(wants);
    }
    let (object, log) = libbpf_log::captured(|| open.load());
    object.map_err(|source| Error::Load { policy: "the sweep".to_string(), source, log })
}

/// Load a policy to be attached by itself, with records and queues of its own.
pub(crate) fn load_direct(
    policy: &Policy,
    inspected: &Inspected,
    kernel: &KernelBtf,
    layout: &Layout,
    queues: &Claimed,
) -> Result<Loaded> {
    let btf = augmented_btf(inspected, kernel, layout, 0)?;
    let mut open = open_policy(policy, inspected, kernel, &btf, &queues.ids())?;
    let mut ops = Ops::read(&open, &policy.btf()?)?;
    Obstacles::read(&open, &ops, Target::Direct).refuse()?;
    let warnings = drop_unknown_ops(&mut open, &mut ops, kernel);

    size_cpu_records(&mut open)?;
    let active = Active { slot: 0, generation: 1, epoch: 1 }.to_word().to_ne_bytes();
    patch(&mut open, HOST_MAP, std::mem::offset_of!(HostData, active), &active)?;
    for scope in &SCOPES {
        patch(&mut open, HOST_MAP, scope.image, &scope.image_of(layout))?;
    }
    let topology = Topology::read()?;
    patch_topology(&mut open, &topology)?;
    for (i, queue) in queues.all.iter().enumerate() {
        let family = family(queue, topology.nr_cpus(), topology.nr_llcs);
        let offset = std::mem::offset_of!(SdkData, direct_queues) + i * size_of::<DsqGroup>();
        // SAFETY: Plain types take any bytes and have no padding.
        patch(&mut open, SDK_SECTION, offset, unsafe { plain::as_bytes(&family) })?;
    }
    // Nothing is ever swept without the host.
    for mut program in open.progs_mut().filter(|p| scopes::sweeps(&p.name().to_string_lossy())) {
        program.set_autoload(false);
    }
    let object = load(open, &ops)?;
    let (variables, places) = (inspected.variables.clone(), places(layout, 0));
    let asks = Asks::default();
    Ok(Loaded { object, ops, lacks: 0, asks, load: 0, held: Vec::new(), variables, places, warnings })
}

/// Where the columns of the policy in `slot` stand.
pub(crate) fn places(layout: &Layout, slot: u8) -> Places {
    let of = |scope: &ScopeLayout| {
        let own = scope.columns.iter().filter(|c| c.slots.contains(&u32::from(slot)));
        own.map(|c| (c.name.clone(), c.offset as usize..(c.offset + c.ty.size()) as usize)).collect()
    };
    layout.scopes.iter().map(|(scope, columns)| (*scope, of(columns))).collect()
}

/// As [`crate::host_data::Mapped::set_topology`].
fn patch_topology(open: &mut OpenObject, topology: &Topology) -> Result<()> {
    let bytes = |table: &[u16]| -> Vec<u8> { table.iter().flat_map(|value| value.to_ne_bytes()).collect() };
    patch(open, HOST_MAP, std::mem::offset_of!(HostData, nr_cpus), &topology.nr_cpus().to_ne_bytes())?;
    patch(open, HOST_MAP, std::mem::offset_of!(HostData, nr_llcs), &topology.nr_llcs.to_ne_bytes())?;
    patch(open, HOST_MAP, std::mem::offset_of!(HostData, llc_of_cpu), &bytes(&topology.llc_of_cpu))?;
    patch(open, HOST_MAP, std::mem::offset_of!(HostData, core_of_cpu), &bytes(&topology.core_of_cpu))?;
    patch(open, HOST_MAP, std::mem::offset_of!(HostData, next_sibling), &bytes(&topology.next_sibling))
}

fn patch(open: &mut OpenObject, section: &str, offset: usize, bytes: &[u8]) -> Result<()> {
    let place = variables::Variable { section: section.to_string(), offset, size: bytes.len() };
    variables::write(open, &place, bytes)
        .ok_or_else(|| Error::NotAPolicy { why: format!("its section {section} is missing or too small") })
}

/// Enough of a file for libbpf, which takes BTF by path only: anonymous memory, seen through /proc.
struct BtfFile(File);

impl BtfFile {
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

fn augmented_btf(inspected: &Inspected, kernel: &KernelBtf, layout: &Layout, slot: u8) -> Result<BtfFile> {
    let bytes = state_migrate::augment(kernel.raw(), &inspected.schema, layout, u32::from(slot))?;
    // SAFETY: the name is NUL-terminated; the call has no other requirement.
    let fd = unsafe { libc::memfd_create(c"scx-upgrade-btf".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).trying("cannot make a memory file for the BTF");
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(&bytes).trying("cannot write the BTF to memory")?;
    Ok(BtfFile(file))
}

fn open_object(object: &[u8], btf: Option<&BtfFile>) -> Result<OpenObject> {
    let mut builder = ObjectBuilder::default();
    // Names the object's maps in the kernel, for bpftool.
    builder.name("scx_policy").trying("cannot name the object")?;
    if let Some(btf) = btf {
        builder.btf_custom_path(btf.path()).trying("cannot name the BTF")?;
    }
    let (open, log) = libbpf_log::captured(|| builder.open_memory(object));
    open.map_err(|e| Error::NotAPolicy { why: format!("libbpf cannot open its BPF half: {e}\n{log}") })
}

fn open_policy(
    policy: &Policy,
    inspected: &Inspected,
    kernel: &KernelBtf,
    btf: &BtfFile,
    queues: &[u64],
) -> Result<OpenObject> {
    let mut open = open_object(policy.object(), Some(btf))?;
    kernel.fill_enums(&mut open, &inspected.variables)?;
    for (name, value) in policy.settings() {
        inspected.variables.set(&mut open, name, value)?;
    }
    for (queue, id) in inspected.schema.queues.iter().zip(queues) {
        inspected.variables.set(&mut open, &queue.name, &id.to_ne_bytes())?;
    }
    Ok(open)
}

/// An op that this kernel does not know would never be called, and libbpf would refuse the object for it.
/// Returns a warning for each.
fn drop_unknown_ops(open: &mut OpenObject, ops: &mut Ops, kernel: &KernelBtf) -> Vec<String> {
    let unknown: Vec<String> = ops.programs.keys().filter(|op| !kernel.has_op(op)).cloned().collect();
    unknown.iter().for_each(|op| ops.clear(open, op));
    unknown.iter().map(|op| format!("{}: this kernel has no op {op} and never calls it", ops.name)).collect()
}

/// What of the host's flags the policy lacks, `LACKS_*`.
fn lacks(ops: &Ops, kernel: &KernelBtf) -> u8 {
    let lacks = |(name, bit): &(&str, u8)| if ops.flags & kernel.scx(name) == 0 { *bit } else { 0 };
    EMULATED.iter().map(lacks).fold(0, |all, bit| all | bit)
}

/// What the policy asks of a host's terms.
fn asks(ops: &Ops, kernel: &KernelBtf) -> Result<Asks> {
    let unknown = kernel.unknown_flags(ops.flags);
    if unknown != 0 {
        return Err(Error::UnknownFlags { policy: ops.name.clone(), flags: unknown });
    }
    let flags = ops.flags & !host_flags(kernel);
    Ok(Asks { flags, uses: uses(ops.programs.keys(), lacks(ops, kernel)) })
}

/// What a policy uses of what a lean host may do without, by name: its ops, and the flags that it does not lack.
pub(crate) fn uses<'a>(ops: impl Iterator<Item = &'a String>, lacks: u8) -> BTreeSet<String> {
    let flags = EMULATED.iter().filter(|(_, bit)| lacks & bit == 0);
    ops.cloned().chain(flags.map(|(flag, _)| (*flag).to_string())).collect()
}

fn load(mut open: OpenObject, ops: &Ops) -> Result<Object> {
    for mut program in open.progs_mut().filter(|p| p.name() == SCX_PROBE) {
        program.set_autoload(false);
    }
    let (object, log) = libbpf_log::captured(|| open.load());
    object.map_err(|source| Error::Load { policy: ops.name.clone(), source, log })
}

/// Load the host's object.
pub(crate) fn load_host(mut open: OpenObject) -> Result<Object> {
    for mut program in open.progs_mut().filter(|p| p.name() == SCX_PROBE) {
        program.set_autoload(false);
    }
    let (object, log) = libbpf_log::captured(|| open.load());
    object.map_err(|source| Error::Load { policy: "the host".to_string(), source, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_cancels_is_found_in_the_value_of_a_map() {
        let host = Policy::new(HOST_OBJECT, "");
        let btf = host.btf().unwrap();
        let is = |name: &str| is_cancelled(&btf, btf.find(Kind::Struct, name).unwrap(), MAX_DEPTH);
        assert!(is("scxu_cgroup_work"), "a timer and a work item");
        assert!(is("scxu_handover"), "a timer");
        assert!(!is("scxu_task_row") && !is("scxu_task_record") && !is("registry"));
    }

    #[test]
    fn only_maps_that_the_kernel_clears_are_held() {
        let host = Policy::new(HOST_OBJECT, "");
        let open = open_object(HOST_OBJECT, None).unwrap();
        let mut held = held_maps(&open, &host.btf().unwrap(), &[]);
        held.sort();
        let (arrays, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|name| name.starts_with("op_"));
        assert!(arrays.contains(&"op_enqueue".to_string()));
        assert_eq!(rest, ["scxu_cgroup_work", "scxu_handover"]);
    }
}

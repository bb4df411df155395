//! Open a policy's object and load it, verified, with its state where a layout puts it. Nothing of what runs is
//! touched here.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::MapHandle;
use libbpf_rs::MapType;
use libbpf_rs::OpenObject;
use libbpf_rs::libbpf_sys;
use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::Layout;

use crate::candidate::obstacles::DIRECT_OPS;
use crate::candidate::obstacles::Obstacles;
use crate::candidate::obstacles::Target;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::Active;
use crate::host::abi::DsqGroup;
use crate::host::abi::HostData;
use crate::host::abi::SdkData;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::EMULATED;
use crate::host::attach_config::OpsRequirements;
use crate::host::attach_config::host_flags;
use crate::host::attach_config::uses;
use crate::host::loaded::Loaded;
use crate::host::loaded::places;
use crate::host::names::HOST_MAP;
use crate::host::object::size_cpu_records;
use crate::host::queues::family;
use crate::host::registry::Claimed;
use crate::host::scopes;
use crate::host::scopes::SCOPES;
use crate::kernel::btf::KernelBtf;
use crate::kernel::object;
use crate::kernel::object::BtfFile;
use crate::kernel::ops::Ops;
use crate::kernel::topology::Topology;
use crate::kernel::variables;

/// Where a policy has its `struct scxu_sdk`.
const SDK_SECTION: &str = ".rodata.scxu_sdk";

/// Types of the kernel's whose work the kernel cancels when user space's last reference to their map goes.
const CANCELLED: [&str; 3] = ["bpf_timer", "bpf_wq", "bpf_task_work"];
/// How deep a map's value is searched for them. The kernel finds them in fewer structs inside each other than this.
const MAX_DEPTH: u32 = 32;

/// The terms of the host that a policy is loaded for.
#[derive(Debug, Clone, Copy)]
pub enum AttachConstraint<'a> {
    /// These: a policy that they do not suit is refused.
    These(&'a AttachConfig),
    /// Whatever the policy asks for: the host is attached, or attached again, for it.
    Any,
}

/// What a policy asks of a host's terms.
///
/// # Errors
/// [`Error::NotAPolicy`], or [`Error::UnknownFlags`].
pub(crate) fn asks_of(policy: &Policy, kernel: &KernelBtf) -> Result<OpsRequirements> {
    let open = object::open(policy.object(), None)?;
    asks(&Ops::read(&open, &policy.btf()?)?, kernel)
}

/// Where a policy is loaded to.
#[derive(Debug)]
pub struct LoadTarget<'a> {
    /// Where each column stands.
    pub layout: &'a Layout,
    /// The slot.
    pub slot: u8,
    /// The number of this load, which no other has that any host of this state's had.
    pub load: u64,
    /// DSQ ids in the schema's order.
    pub queues: &'a [u64],
    /// The host's terms.
    pub on: AttachConstraint<'a>,
}

/// Load a policy for the host. `shared`: the host's maps of records and shared memory, which become the policy's, by name.
pub(crate) fn load_for_host(
    policy: &Policy,
    inspected: &Inspected,
    kernel: &KernelBtf,
    shared: &[(&'static str, &MapHandle)],
    home: &LoadTarget<'_>,
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
    if let AttachConstraint::These(terms) = home.on
        && !terms.satisfies(&asks)
    {
        return Err(Error::NeedsReattach { policy: ops.name, why: terms.why_not(&asks, kernel) });
    }
    let lacks = lacks(&ops, kernel);
    size_cpu_records(&mut open)?;
    object::share(&mut open, shared)?;
    let held = held_maps(&open, &policy.btf()?, shared);
    let object = object::load(open, &ops.name)?;
    let places = places(home.layout, home.slot);
    let variables = inspected.variables.clone();
    Ok(Loaded { object, ops, lacks, asks, load: home.load, held, variables, places, warnings })
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
    let object = object::load(open, &ops.name)?;
    let (variables, places) = (inspected.variables.clone(), places(layout, 0));
    let asks = OpsRequirements::default();
    Ok(Loaded { object, ops, lacks: 0, asks, load: 0, held: Vec::new(), variables, places, warnings })
}

/// As [`crate::host::memory::Mapped::set_topology`].
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

fn open_policy(
    policy: &Policy,
    inspected: &Inspected,
    kernel: &KernelBtf,
    btf: &BtfFile,
    queues: &[u64],
) -> Result<OpenObject> {
    let mut open = object::open(policy.object(), Some(btf))?;
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
fn asks(ops: &Ops, kernel: &KernelBtf) -> Result<OpsRequirements> {
    let unknown = kernel.unknown_flags(ops.flags);
    if unknown != 0 {
        return Err(Error::UnknownFlags { policy: ops.name.clone(), flags: unknown });
    }
    let flags = ops.flags & !host_flags(kernel);
    Ok(OpsRequirements { flags, uses: uses(ops.programs.keys(), lacks(ops, kernel)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::object::HOST_OBJECT;

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
        let open = object::open(HOST_OBJECT, None).unwrap();
        let mut held = held_maps(&open, &host.btf().unwrap(), &[]);
        held.sort();
        let (arrays, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|name| name.starts_with("op_"));
        assert!(arrays.contains(&"op_enqueue".to_string()));
        assert_eq!(rest, ["scxu_cgroup_work", "scxu_handover"]);
    }
}

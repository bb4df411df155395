//! What the running policy counts in its globals, read from the kernel, with no process of the policy's: the programs in
//! its slot name their maps, and the maps have BTF.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::slice;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys;
use state_migrate::Btf;
use state_migrate::Kind;

use crate::host::Host;
use crate::info;

/// Maps that a program may have: the verifier takes 64 (MAX_USED_MAPS, Linux v7.3 include/linux/bpf_verifier.h).
const MAX_MAPS: usize = 64;

/// What variables that are not the policy's own begin with: those of the scx headers, which are weak there, which BTF does
/// not say (scx_cargo 1.1.4, cid.bpf.h and common.bpf.h), and of this project's.
const HEADERS: [&str; 5] = ["_", "scx_", "scxu_", "bpf_", "cmask_"];

/// Numbers by name. What cannot be read is left out: this is for people to look at.
pub fn of_running(host: &Host) -> BTreeMap<String, u64> {
    let slot = host.data.active().slot;
    let maps: BTreeSet<u32> = host.program_ids(slot).flat_map(maps_of).collect();
    maps.into_iter().filter_map(numbers).flatten().collect()
}

/// Ids of the maps that a program uses.
pub(crate) fn maps_of(program: u32) -> Vec<u32> {
    // SAFETY: the call takes a number.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(program) };
    if fd < 0 {
        return Vec::new();
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut ids = [0u32; MAX_MAPS];
    let mut info = libbpf_sys::bpf_prog_info {
        nr_map_ids: MAX_MAPS as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` has `size` bytes, and points to room for as many ids as it says.
    let ret = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &mut info, &mut size) };
    if ret != 0 {
        return Vec::new();
    }
    ids[..MAX_MAPS.min(info.nr_map_ids as usize)].to_vec()
}

/// The numbers in a map of globals; `None` if it is none.
fn numbers(map: u32) -> Option<Vec<(String, u64)>> {
    let map = MapHandle::from_map_id(map).ok()?;
    let name = map.name().to_string_lossy().into_owned();
    // The kernel keeps 15 characters: the beginning of the object's name, and the section.
    if !name.ends_with(".bss") && !name.ends_with(".data") {
        return None;
    }
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok()??;
    let about = map.info().ok()?.info;
    let loaded = KernelBtf::load(about.btf_id)?;
    let btf = Btf::parse(loaded.raw()?).ok()?;
    let section = about.btf_value_type_id;
    if btf.kind(section)? != Kind::Datasec {
        return None;
    }
    let mut numbers = Vec::new();
    for variable in btf.datasec_vars(section) {
        let name = btf.name(variable.type_id);
        if HEADERS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let (from, size) = (variable.offset as usize, variable.size as usize);
        let (Some(bytes), Some(ty)) = (value.get(from..from + size), btf.referenced(variable.type_id)) else {
            continue;
        };
        if let Some(number) = info::value(&btf, ty, bytes).and_then(|(_, value)| value.parse().ok()) {
            numbers.push((name.to_string(), number));
        }
    }
    Some(numbers)
}

/// BTF that the kernel has, by its id.
struct KernelBtf(*mut libbpf_sys::btf);

impl KernelBtf {
    fn load(id: u32) -> Option<KernelBtf> {
        // SAFETY: the call takes a number.
        let btf = unsafe { libbpf_sys::btf__load_from_kernel_by_id(id) };
        (!btf.is_null()).then_some(KernelBtf(btf))
    }

    fn raw(&self) -> Option<&[u8]> {
        let mut size = 0;
        // SAFETY: the BTF is there for as long as `self`.
        let data = unsafe { libbpf_sys::btf__raw_data(self.0, &mut size) };
        if data.is_null() {
            return None;
        }
        // SAFETY: libbpf says that there are `size` bytes, which live as long as the BTF and do not change.
        Some(unsafe { slice::from_raw_parts(data.cast(), size as usize) })
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        // SAFETY: it is freed here, once.
        unsafe { libbpf_sys::btf__free(self.0) }
    }
}

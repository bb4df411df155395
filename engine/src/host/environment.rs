//! Where a command runs: whether it can see the pins of the host that the kernel runs, and whether a namespace is in its way. Both
//! are asked of the kernel, before anything is changed.

use std::path::Path;

use libbpf_rs::MapCore;
use libbpf_rs::MapHandle;
use libbpf_rs::query::LinkInfoIter;
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::query::MapInfoIter;
use state_migrate::Btf;
use state_migrate::Kind;

use crate::error::Error;
use crate::error::Result;
use crate::host::memory::Mapped;
use crate::host::names;
use crate::host::names::HOST_MAP;
use crate::host::names::REGISTRY_MAP;
use crate::host::object::HOST_OPS;
use crate::host::pins::BPFFS;
use crate::host::pins::Pins;
use crate::host::registry::Registry;
use crate::host::registry::SlotInfo;
use crate::host::resident::Resident;
use crate::kernel::namespaces::mounts;
use crate::kernel::sysfs;

/// The links of sched_ext schedulers that the kernel has, by their ids, with the struct_ops map of each.
///
/// # Errors
/// The kernel's BTF cannot be read, or has no sched_ext.
pub(crate) fn scheduler_links() -> Result<Vec<(u32, MapHandle)>> {
    let raw = sysfs::btf()?;
    let value = Btf::parse(&raw)?.find(Kind::Struct, "bpf_struct_ops_sched_ext_ops");
    let value = value.ok_or(Error::NoStructOps)?;
    let mut found = Vec::new();
    for info in LinkInfoIter::default() {
        let LinkTypeInfo::StructOps(ops) = info.info else { continue };
        // A link that went away just now has no map.
        let Ok(map) = MapHandle::from_map_id(ops.map_id) else { continue };
        if map.info().is_ok_and(|map| map.info.btf_vmlinux_value_type_id == value) {
            found.push((info.id, map));
        }
    }
    Ok(found)
}

/// [`Error::HiddenPins`] where the kernel runs a host of this project's whose pins are not at `pins`. By what the kernel shows: the
/// scheduler's name, and the name of the map behind its link.
pub fn hidden_host(pins: &Pins) -> Option<Error> {
    if sysfs::state() != "enabled" || !sysfs::ops().starts_with(names::NAME) {
        return None;
    }
    // A host that is being attached at this moment has its maps pinned already, and not yet its link.
    if pins.has_state() && !pins.link().exists() {
        return None;
    }
    let links = scheduler_links().ok()?;
    // Where no link can be seen the name alone tells.
    if !links.is_empty() && !links.iter().any(|(_, map)| map.name().to_string_lossy() == HOST_OPS) {
        return None;
    }
    let why = why_hidden(&mounts(), Path::new("/proc/1/root/sys/fs/bpf/scx-upgrade/link").exists());
    Some(Error::HiddenPins { runs: hidden_policy().unwrap_or_else(sysfs::ops), why })
}

/// What it runs, read through the kernel's ids of its maps; `None` where there are several such maps.
fn hidden_policy() -> Option<String> {
    let registry: Registry = Registry::load(&only_map(REGISTRY_MAP)?).ok()?;
    let active = Mapped::new(&only_map(HOST_MAP)?).ok()?.active();
    let policy = registry.slot(active.slot).map(SlotInfo::title)?;
    Some(format!("{policy}, generation {}", active.generation))
}

fn only_map(name: &str) -> Option<MapHandle> {
    let mut found = MapInfoIter::default().filter(|map| map.name.to_string_lossy() == name);
    let only = found.next().filter(|_| found.next().is_none())?;
    MapHandle::from_map_id(only.id).ok()
}

fn why_hidden(mounts: &str, init_has_pins: bool) -> String {
    // First: the folder of the pins may be in what covers it too, since each command makes it.
    if at(mounts, BPFFS).count() > 1 {
        return format!("another file system is mounted over {BPFFS}: `umount {BPFFS}` uncovers them");
    }
    if init_has_pins {
        return "this process is in another mount namespace than the machine's init: `nsenter -t 1 -m` enters that"
            .to_string();
    }
    format!(
        "they are in another mount of bpffs than {BPFFS}: run this where the host was started, or mount that there"
    )
}

/// The lines of mountinfo (proc_pid_mountinfo(5)) for a place: the root of each mount in its file system, and its type.
fn at<'m>(mounts: &'m str, place: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
    mounts.lines().filter_map(move |line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (point == place).then_some((root, source.split(' ').next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
        30 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n\
        31 22 0:28 / /sys/fs/bpf rw,nosuid shared:10 - bpf bpf rw,mode=700\n";

    #[test]
    fn what_hides_pins_is_told_apart() {
        let over = format!("{MOUNTS}40 31 0:40 / /sys/fs/bpf rw - bpf bpf rw\n");
        assert!(why_hidden(&over, false).contains("umount /sys/fs/bpf"));
        assert!(why_hidden(&over, true).contains("umount /sys/fs/bpf"));
        assert!(why_hidden(MOUNTS, true).contains("nsenter -t 1 -m"));
        assert!(why_hidden(MOUNTS, false).contains("another mount of bpffs"));
        assert_eq!(at(MOUNTS, "/sys/fs/bpf").collect::<Vec<_>>(), [("/", "bpf")]);
    }
}

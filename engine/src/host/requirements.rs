//! What a host needs of the kernel and of the machine, looked at before anything changes.

use std::collections::BTreeSet;
use std::fs;

use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::Scope;
use state_migrate::object as elf;

use crate::error::Error;
use crate::error::Result;
use crate::host::object::HOST_OBJECT;
use crate::host::scopes;
use crate::host::scopes::SCOPES;
use crate::kernel::deadline;
use crate::kernel::deadline::Demand;
use crate::kernel::machine;
use crate::kernel::machine::Tree;
use crate::kernel::namespaces::check_user_namespace;
use crate::kernel::sysfs::*;

/// Can this process and this kernel run a host at all? Cheap enough for every command.
///
/// # Errors
/// [`Error::NotRoot`], [`Error::NotPermitted`] or [`Error::NoSchedExt`].
pub fn check() -> Result<()> {
    check_rights()?;
    check_sched_ext()
}

/// Is this process root, with the capabilities that loading and attaching take?
///
/// # Errors
/// [`Error::NotRoot`], [`Error::NotPermitted`] or [`Error::Namespace`].
pub fn check_rights() -> Result<()> {
    // SAFETY: no arguments, no effects.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::NotRoot);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // Without /proc nothing is known, and the kernel has the last word anyway.
    let Some(mask) = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else {
        return Ok(());
    };
    let missing = missing_capabilities(mask);
    if !missing.is_empty() {
        return Err(Error::NotPermitted { missing: missing.join(" and ") });
    }
    check_user_namespace()
}

/// Those that a set of effective capabilities lacks, by name.
fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    // Numbers of include/uapi/linux/capability.h.
    const NEEDED: [(u32, &str); 3] = [(21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    // CAP_SYS_ADMIN stands for the other two.
    if effective & 1 << 21 != 0 {
        return Vec::new();
    }
    NEEDED.iter().filter(|(bit, _)| effective & 1 << bit == 0).map(|(_, name)| *name).collect()
}

/// Does the kernel have sched_ext?
///
/// # Errors
/// [`Error::NoSchedExt`]
pub fn check_sched_ext() -> Result<()> {
    if has_sched_ext() { Ok(()) } else { Err(Error::NoSchedExt) }
}

/// What a host needs of a kernel. Costs a pass over the BTF, so only done when one is started.
///
/// # Errors
/// The first of the checks of this module that fails.
pub fn check_for_host() -> Result<()> {
    check_release()?;
    check_jit()?;
    let raw = btf()?;
    check_btf(&raw)?;
    let btf = Btf::parse(&raw)?;
    check_struct_ops(&btf)?;
    check_kfuncs(&btf)?;
    check_attach()?;
    check_memory()
}

/// Would the kernel let a scheduler be attached, beside what a host needs of it? Asked before the one that runs is detached: the
/// answer is of this moment.
///
/// # Errors
/// [`Error::IsolatedCpus`] or [`Error::DeadlineBandwidth`].
pub fn check_attach() -> Result<()> {
    check_isolated(&Tree::default())?;
    check_bandwidth().map(drop)
}

/// Did the boot leave all CPUs in the scheduling domains?
///
/// # Errors
/// [`Error::IsolatedCpus`]
pub fn check_isolated(tree: &Tree) -> Result<()> {
    match tree.isolated() {
        Some((option, cpus)) => Err(Error::IsolatedCpus { option, cpus }),
        None => Ok(()),
    }
}

/// Has the kernel the deadline bandwidth that it reserves for a scheduler? `None`: it cannot be known before, so the kernel
/// has the last word.
///
/// # Errors
/// [`Error::DeadlineBandwidth`]
pub fn check_bandwidth() -> Result<Option<Vec<Demand>>> {
    let cpus = match machine::cpus() {
        Ok(cpus) => cpus,
        Err(e) => {
            log::debug!("the deadline bandwidth cannot be read: {e}");
            return Ok(None);
        }
    };
    let tree = Tree::default();
    deadline::check(&cpus, |cpu| deadline::capacity(tree.root(), cpu)).map(Some)
}

/// Has the cgroup of this process room for the records of all tasks that there can be?
///
/// # Errors
/// [`Error::LittleMemory`]
pub fn check_memory() -> Result<()> {
    machine::check_memory(Tree::default().memory().as_ref(), most_tasks(), task_record())
}

/// What the record of a task takes, bytes.
pub(crate) fn task_record() -> u64 {
    SCOPES
        .iter()
        .find(|scope| scope.scope == Scope::Task)
        .map_or(0, |scope| u64::from(scopes::value_size(scope)))
}

/// Does the kernel have every kfunc without which the host does not load?
///
/// # Errors
/// [`Error::MissingKfuncs`]
pub fn check_kfuncs(btf: &Btf<'_>) -> Result<()> {
    let known: BTreeSet<&str> = btf.ids(Kind::Func).map(|id| btf.name(id)).collect();
    let wanted = elf::undefined(HOST_OBJECT).map_err(|e| Error::NotAPolicy { why: e.to_string() })?;
    let missing: BTreeSet<String> =
        wanted.into_iter().filter(|name| !known.contains(base(name))).map(|n| base(&n).to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::MissingKfuncs { kfuncs: missing.into_iter().collect() })
}

/// A kfunc's name without what CO-RE calls its flavour.
fn base(name: &str) -> &str {
    name.split("___").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_for_the_capabilities_that_came_of_it() {
        assert!(missing_capabilities(u64::MAX).is_empty());
        assert!(missing_capabilities(1 << 21).is_empty());
        assert_eq!(missing_capabilities(1 << 39), ["CAP_SYS_ADMIN", "CAP_PERFMON"]);
    }

    #[test]
    fn the_host_says_what_it_calls() {
        let wanted = elf::undefined(HOST_OBJECT).unwrap();
        assert!(wanted.iter().any(|name| base(name).starts_with("scx_bpf_")), "{wanted:?}");
    }
}

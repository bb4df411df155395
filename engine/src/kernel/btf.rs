//! The kernel's BTF, read once per command: enumerators, the ops it knows, and the base of the augmented BTF.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use libbpf_rs::OpenObject;
use state_migrate::Btf;
use state_migrate::Kind;

use crate::error::Error;
use crate::error::Result;
use crate::kernel::sysfs;
use crate::kernel::variables;
use crate::kernel::variables::Variables;

/// The ops flags that a host does not always set: see `enum scx_ops_flags`, Linux v7.3 kernel/sched/ext/internal.h.
const FLAGS: &[&str] = &[
    "SCX_OPS_ENQ_LAST",
    "SCX_OPS_SWITCH_PARTIAL",
    "SCX_OPS_ALLOW_QUEUED_WAKEUP",
    "SCX_OPS_BUILTIN_IDLE_PER_NODE",
    "SCX_OPS_ALWAYS_ENQ_IMMED",
    "SCX_OPS_TID_TO_TASK",
    "SCX_OPS_HAS_CGROUP_WEIGHT",
];

/// See the module.
#[derive(Debug)]
pub struct KernelBtf {
    raw: Vec<u8>,
    enums: BTreeMap<String, u64>,
    ops: BTreeSet<String>,
}

impl KernelBtf {
    /// Reads it.
    ///
    /// # Errors
    /// The kernel has none, or it is damaged.
    pub fn read() -> Result<KernelBtf> {
        let raw = sysfs::btf()?;
        let btf = Btf::parse(&raw)?;
        let enums = btf.enumerators_with_prefix("SCX_");
        let id = btf.find(Kind::Struct, "sched_ext_ops").ok_or(Error::NoSchedExt)?;
        let ops = btf.members(id).map(|m| m.name.to_string()).collect();
        Ok(KernelBtf { raw, enums, ops })
    }

    /// As the kernel gave it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Does this kernel's sched_ext know the op?
    pub fn has_op(&self, op: &str) -> bool {
        self.ops.contains(op)
    }

    /// Has this kernel a function of this name? Looked up each time, among some ten thousands.
    pub fn has_function(&self, name: &str) -> bool {
        Btf::parse(&self.raw).is_ok_and(|btf| btf.find(Kind::Func, name).is_some())
    }

    /// Value of an SCX enumerator, 0 where this kernel has none of the name.
    pub fn scx(&self, name: &str) -> u64 {
        self.enums.get(name).copied().unwrap_or(0)
    }

    /// Ops flags by name, for messages; those that this kernel has no name for as a number.
    pub fn flag_names(&self, flags: u64) -> String {
        let (mut names, mut rest) = (Vec::new(), flags);
        for name in FLAGS {
            let bit = self.scx(name);
            if bit != 0 && rest & bit == bit {
                names.push((*name).to_string());
                rest &= !bit;
            }
        }
        if rest != 0 {
            names.push(format!("{rest:#x}"));
        }
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    }

    /// Those of `flags` for which this kernel refuses to attach a scheduler.
    pub fn unknown_flags(&self, flags: u64) -> u64 {
        match self.scx("SCX_OPS_ALL_FLAGS") {
            0 => 0,
            all => flags & !all,
        }
    }

    /// The scx headers name each SCX constant as a read-only variable, because its value differs between kernels.
    /// Left at 0, the kernel ejects the scheduler at its first DSQ insert.
    pub fn fill_enums(&self, object: &mut OpenObject, variables: &Variables) -> Result<()> {
        for (name, place) in variables.with_prefix("__SCX_") {
            let value = self.scx(&name[2..]).to_ne_bytes();
            if place.size == value.len() && variables::write(object, place, &value).is_none() {
                return Err(Error::NotAPolicy { why: format!("{name} stands outside its section") });
            }
        }
        Ok(())
    }
}

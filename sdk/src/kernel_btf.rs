//! The kernel's BTF, read once per command: enumerators, the ops it knows, and the base of the augmented BTF.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use libbpf_rs::OpenObject;
use state_migrate::Btf;
use state_migrate::Kind;

use crate::error::Error;
use crate::error::Result;
use crate::kernel;
use crate::variables;
use crate::variables::Variables;

/// See the module.
#[derive(Debug)]
pub(crate) struct KernelBtf {
    raw: Vec<u8>,
    enums: BTreeMap<String, u64>,
    ops: BTreeSet<String>,
}

impl KernelBtf {
    pub fn read() -> Result<KernelBtf> {
        let raw = kernel::btf()?;
        let btf = Btf::parse(&raw)?;
        let enums = btf.enumerators_with_prefix("SCX_");
        let id = btf.find(Kind::Struct, "sched_ext_ops").ok_or(Error::NoSchedExt)?;
        let ops = btf.members(id).map(|m| m.name.to_string()).collect();
        Ok(KernelBtf { raw, enums, ops })
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Does this kernel's sched_ext know the op?
    pub fn has_op(&self, op: &str) -> bool {
        self.ops.contains(op)
    }

    /// Value of an SCX enumerator, 0 where this kernel has none of the name.
    pub fn scx(&self, name: &str) -> u64 {
        self.enums.get(name).copied().unwrap_or(0)
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

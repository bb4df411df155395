//! A policy's `struct sched_ext_ops`, read before anything is loaded: which ops it defines by which programs, which
//! flags it asks for.

use std::collections::BTreeMap;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::MapType;
use libbpf_rs::OpenMap;
use libbpf_rs::OpenObject;
use state_migrate::Btf;
use state_migrate::Kind;

use crate::error::Error;
use crate::error::Result;

/// Members that the kernel reads when a scheduler is attached, so reads from the host: their names and sizes in bytes
/// (struct sched_ext_ops, Linux v7.3 kernel/sched/ext/internal.h).
const NUMBERS: [(&str, usize); 5] = [
    ("dispatch_max_batch", 4),
    ("timeout_ms", 4),
    ("exit_dump_len", 4),
    ("hotplug_seq", 8),
    ("sub_cgroup_id", 8),
];

/// See the module.
#[derive(Debug, Clone)]
pub struct Ops {
    /// `.name`
    pub name: String,
    /// `.flags`
    pub flags: u64,
    /// Op to program, for each op that is defined.
    pub programs: BTreeMap<String, String>,
    /// Its numbers of [`NUMBERS`] that are not 0.
    pub(crate) numbers: BTreeMap<String, u64>,
    /// Where each member stands, in the layout of the object's own BTF.
    members: BTreeMap<String, usize>,
    size: usize,
    map: String,
}

impl Ops {
    /// Those of no object.
    #[cfg(test)]
    pub(crate) fn of_programs<'a>(name: &str, ops: impl Iterator<Item = &'a str>) -> Ops {
        let programs = ops.map(|op| (op.to_owned(), format!("{name}_{op}"))).collect();
        let (numbers, members) = (BTreeMap::new(), BTreeMap::new());
        Ops { name: name.to_owned(), flags: 0, programs, numbers, members, size: 0, map: String::new() }
    }

    /// Read them. In an opened object libbpf keeps a struct_ops map's initial value with a pointer to the program in
    /// each member that names one.
    pub fn read(object: &OpenObject, btf: &Btf<'_>) -> Result<Ops> {
        let mut tables = object.maps().filter(|m| m.map_type() == MapType::StructOps);
        let table = tables.next().ok_or_else(|| not("the BPF object has no struct sched_ext_ops"))?;
        if tables.next().is_some() {
            return Err(not(
                "the BPF object has more than one struct_ops map, and the host runs one: keep the one \
                            that SCXU_POLICY_DEFINE makes",
            ));
        }
        Ops::of(object, &table, btf)
    }

    /// Those of the host, whose object has a struct_ops map beside the one of this name.
    pub(crate) fn read_of_host(object: &OpenObject, btf: &Btf<'_>, map: &str) -> Result<Ops> {
        let table = object.maps().find(|m| m.name() == map);
        Ops::of(object, &table.ok_or_else(|| not("the host has no ops"))?, btf)
    }

    fn of(object: &OpenObject, table: &OpenMap<'_>, btf: &Btf<'_>) -> Result<Ops> {
        let id = btf
            .find(Kind::Struct, "sched_ext_ops")
            .ok_or_else(|| not("its struct_ops map is not a struct sched_ext_ops"))?;
        let value = table.initial_value().ok_or_else(|| not("its struct_ops map has no value"))?;
        let members: BTreeMap<String, usize> =
            btf.members(id).map(|m| (m.name.to_string(), m.bit_offset as usize / 8)).collect();

        let by_pointer: BTreeMap<u64, String> = object
            .progs()
            .map(|p| (p.as_libbpf_object().as_ptr() as u64, p.name().to_string_lossy().into_owned()))
            .collect();
        let word = |offset: usize| {
            value.get(offset..offset + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes)
        };
        let programs = members
            .iter()
            .filter_map(|(op, offset)| Some((op.clone(), by_pointer.get(&word(*offset)?)?.clone())))
            .collect();
        let number = |(member, size): &(&str, usize)| {
            let at = *members.get(*member)?;
            let bytes = value.get(at..at.checked_add(*size)?)?;
            let number = bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            (number != 0).then(|| ((*member).to_string(), number))
        };
        let numbers = NUMBERS.iter().filter_map(number).collect();
        let name = members.get("name").and_then(|o| value.get(*o..)).map(|bytes| {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        });
        Ok(Ops {
            name: name.unwrap_or_default(),
            flags: members.get("flags").and_then(|o| word(*o)).unwrap_or(0),
            programs,
            numbers,
            size: value.len(),
            map: table.name().to_string_lossy().into_owned(),
            members,
        })
    }

    /// Name of the struct_ops map.
    pub fn map(&self) -> &str {
        &self.map
    }

    /// Take an op out of the object before it is loaded; its program is then not loaded either.
    pub fn clear(&mut self, object: &mut OpenObject, op: &str) {
        if self.programs.remove(op).is_some() {
            self.write(object, op, &[0; 8]);
        }
    }

    /// Have another of the object's programs for an op, before it is loaded.
    pub fn set(&mut self, object: &mut OpenObject, op: &str, program: &str) {
        let pointer = object.progs().find(|p| p.name() == program).map(|p| p.as_libbpf_object().as_ptr());
        if let Some(pointer) = pointer {
            self.programs.insert(op.to_string(), program.to_string());
            self.write(object, op, &(pointer as u64).to_ne_bytes());
        }
    }

    /// Set the flags in the object before it is loaded.
    pub fn set_flags(&mut self, object: &mut OpenObject, flags: u64) {
        self.flags = flags;
        self.write(object, "flags", &flags.to_ne_bytes());
    }

    fn write(&self, object: &mut OpenObject, member: &str, bytes: &[u8]) {
        let Some(offset) = self.members.get(member).filter(|o| **o + bytes.len() <= self.size) else {
            return;
        };
        let table = object.maps_mut().find(|m| m.name() == self.map.as_str());
        if let Some(value) = table.and_then(|mut m| m.initial_value_mut().map(|v| v.as_mut_ptr())) {
            // SAFETY: `offset + len` lies inside the value, whose length was `size` when it was read and cannot
            // change between open and load.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.add(*offset), bytes.len()) }
        }
    }
}

fn not(why: &str) -> Error {
    Error::NotAPolicy { why: why.to_string() }
}

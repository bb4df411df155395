//! The records of a host, read and written one by one by BPF programs of its own: `bpf/tools/snapshot.bpf.c`.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use libbpf_rs::Iter;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::Object;
use plain::Plain;
use state_migrate::HEADER;
use state_migrate::Scope;
use state_migrate::snapshot::TaskKey;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::abi;
use crate::kernel::bpf;
use crate::kernel::object;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snapshot.bpf.o"));
const STORES: &str = "snapshot_stores";
/// Bytes of one read of the walk over all tasks: the kernel goes on in one piece until it has them.
const CHUNK: usize = 96 * ENTRY;
const ENTRY: usize = 16 + abi::TASK_DATA;

/// Arguments of the programs that store.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Args {
    key: u64,
    start_time: u64,
}

// SAFETY: repr(C), no padding, any bit pattern is a value.
unsafe impl Plain for Args {}

/// The programs, loaded over the host's maps.
fn missing(name: &str) -> Error {
    Error::BadBuild { name: name.to_string() }
}

#[derive(Debug)]
pub(super) struct Records(Object);

impl Records {
    pub fn load(host: &Host) -> Result<Records> {
        let mut open = object::open_tool(OBJECT)?;
        object::share(&mut open, &host.shared())?;
        Ok(Records(object::load(open, "a tool")?))
    }

    /// Every task's record, header included.
    pub fn tasks(&self) -> Result<Vec<(TaskKey, Vec<u8>)>> {
        let name = "snapshot_tasks";
        let program = self.0.progs_mut().find(|p| p.name() == name).ok_or_else(|| missing(name))?;
        let link = program.attach().trying("cannot attach the walk over all tasks")?;
        let mut iter = Iter::new(&link).trying("cannot begin the walk over all tasks")?;
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; CHUNK]);
        loop {
            match iter.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e).trying("cannot walk over all tasks"),
            }
        }
        let entry = |bytes: &[u8]| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[..8]);
            let start_ns = u64::from_ne_bytes(word);
            let pid = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            let mut record = vec![0; HEADER as usize];
            record.extend_from_slice(&bytes[16..]);
            (TaskKey { pid, start_ns }, record)
        };
        Ok(bytes.chunks_exact(ENTRY).map(entry).collect())
    }

    /// Store values into records. `key` finds a record, if it is there. Gives the records stored to, and those gone.
    pub fn store<'s, K: 's, V: Iterator<Item = (u32, &'s [u8])>>(
        &self,
        scope: Scope,
        records: impl Iterator<Item = (&'s K, V)>,
        key: impl Fn(&K) -> Option<(u64, u64)>,
    ) -> Result<(u64, u64)> {
        let name = format!("restore_{scope}");
        let program = self.0.progs().find(|p| p.name() == name.as_str()).ok_or_else(|| missing(&name))?;
        let stores = self.0.maps().find(|m| m.name() == STORES).ok_or_else(|| missing(STORES))?;
        let (mut stored, mut gone) = (0, 0);
        for (at, values) in records {
            let Some((key, start_time)) = key(at) else {
                gone += 1;
                continue;
            };
            let steps: Vec<abi::Step> = values.flat_map(|(offset, bytes)| pieces(offset, bytes)).collect();
            let mut there = true;
            for steps in steps.chunks(abi::MAX_STEPS) {
                let mut plan = abi::Plan {
                    nr_steps: steps.len() as u32,
                    nr_call_steps: 0,
                    caller: 0,
                    steps: [abi::Step::default(); abi::MAX_STEPS],
                };
                plan.steps[..steps.len()].copy_from_slice(steps);
                // SAFETY: Plan has no padding.
                let bytes = unsafe { plain::as_bytes(&plan) };
                stores
                    .update(&0u32.to_ne_bytes(), bytes, MapFlags::ANY)
                    .trying("cannot hand over the values")?;
                let ret = bpf::run(&program, &name, &mut Args { key, start_time })?;
                there &= ret == 0;
                if ret < 0 && ret != -libc::ESRCH && ret != -libc::ENOENT {
                    return Err(std::io::Error::from_raw_os_error(-ret))
                        .trying(format!("cannot write the record of a {scope}"));
                }
            }
            if there { stored += 1 } else { gone += 1 }
        }
        Ok((stored, gone))
    }
}

/// A value as stores of 8, 4, 2 or 1 bytes, each aligned to its size: so a column of up to 8 bytes is never seen half
/// written.
fn pieces(offset: u32, bytes: &[u8]) -> Vec<abi::Step> {
    let (mut at, mut rest, mut steps) = ((offset - HEADER) as usize, bytes, Vec::new());
    while !rest.is_empty() {
        let size =
            [8usize, 4, 2].into_iter().find(|s| at.is_multiple_of(*s) && rest.len() >= *s).unwrap_or(1);
        let (piece, tail) = rest.split_at(size);
        let mut value = [0; 8];
        value[..size].copy_from_slice(piece);
        steps.push(abi::Step {
            kind: abi::STEP_STORE,
            to: at as u16,
            to_size: size as u8,
            count: 1,
            value: u64::from_ne_bytes(value),
            ..Default::default()
        });
        (at, rest) = (at + size, tail);
    }
    steps
}

/// Where the v2 hierarchy is mounted.
pub(super) fn cgroup_root() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").trying("cannot read the mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    root.ok_or_else(|| std::io::Error::from(ErrorKind::NotFound)).trying("no cgroup v2 hierarchy is mounted")
}

/// The kernel's id of a cgroup: the number of its folder.
pub(super) fn cgroup_id(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

/// All cgroups, with their paths from the root of the hierarchy. One that goes meanwhile is left out.
pub(super) fn cgroups() -> Result<Vec<(PathBuf, File)>> {
    let root = cgroup_root()?;
    let (mut found, mut todo) = (Vec::new(), vec![root.clone()]);
    while let Some(path) = todo.pop() {
        let (Ok(dir), Ok(entries)) = (File::open(&path), std::fs::read_dir(&path)) else { continue };
        todo.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        let below = path.strip_prefix(&root).unwrap_or(&path);
        found.push((Path::new("/").join(below), dir));
    }
    Ok(found)
}

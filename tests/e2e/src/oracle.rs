//! Records as bytes, for those who recompute what each must hold.

use guest::reader::Entry;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use state_migrate::Layout;
use state_migrate::Scope;

/// The host that runs, with its registry as it is now.
pub fn host() -> Host {
    Host::running(&Pins::open().unwrap()).unwrap()
}

/// The record of a task as bytes, header included; what no column takes is zero.
pub fn task(entry: &Entry, layout: &Layout) -> Vec<u8> {
    let scope = &layout.scopes[&Scope::Task];
    let mut bytes = vec![0; scope.record_size as usize];
    for column in &scope.columns {
        bytes[column.offset as usize..][..column.ty.size() as usize].copy_from_slice(entry.column(column));
    }
    bytes
}

/// The record of another scope: the key is a cgroup's descriptor, a CPU, or 0. None if there is none.
pub fn record(host: &Host, scope: Scope, key: u32) -> Option<Vec<u8>> {
    host.records(scope).unwrap().lookup(&key.to_ne_bytes(), MapFlags::ANY).unwrap()
}

/// A small generator of our own: what is drawn is the same in each run.
#[derive(Debug)]
pub struct Walk(pub u64);

impl Walk {
    /// A number below `below`.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

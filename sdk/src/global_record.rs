//! The record of the global scope, mapped: user space writes the values of new columns itself.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use memmap2::MmapOptions;
use memmap2::MmapRaw;
use state_migrate::Step;

use crate::abi;
use crate::error::Result;
use crate::error::Trying;

/// A writable mapping of the map behind `.data.scx_global`, which policies write at the same time.
#[derive(Debug)]
pub(crate) struct GlobalRecord(MmapRaw);

impl GlobalRecord {
    pub fn new(map: &impl AsFd) -> Result<GlobalRecord> {
        let map = MmapOptions::new()
            .len(abi::GLOBAL_RECORD as usize)
            .map_raw(map.as_fd().as_raw_fd())
            .trying("cannot map the global record")?;
        Ok(GlobalRecord(map))
    }

    /// Exact-size stores: the neighbours belong to a policy that runs.
    pub fn apply(&self, steps: &[Step]) {
        for step in steps {
            if step.offset + step.size > abi::GLOBAL_RECORD || step.offset % step.size.max(1) != 0 {
                continue;
            }
            // SAFETY: inside the mapping and aligned to its size, as just checked; a volatile store of a plain integer.
            unsafe {
                let at = self.0.as_mut_ptr().add(step.offset as usize);
                match step.size {
                    1 => at.write_volatile(step.value as u8),
                    2 => at.cast::<u16>().write_volatile(step.value as u16),
                    4 => at.cast::<u32>().write_volatile(step.value as u32),
                    8 => at.cast::<u64>().write_volatile(step.value),
                    _ => {}
                }
            }
        }
    }
}

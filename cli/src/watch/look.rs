//! One look at what runs, with all that is counted.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::counters;
use scx_upgrade_engine::observe::status;
use scx_upgrade_engine::observe::status::Status;

use crate::clock;
use crate::failure::Failure;

/// See the module.
#[derive(Debug, Clone)]
pub struct Look {
    /// When: to compare with, and to show.
    pub at: Instant,
    pub unix_time: u64,
    pub status: Status,
    /// Context switches of the whole machine.
    pub switches: u64,
    /// The kernel's counts of events of the scheduler.
    pub events: BTreeMap<String, u64>,
    /// What the policy counts itself.
    pub counters: BTreeMap<String, u64>,
}

impl Look {
    /// Look.
    pub fn now(pins: &Pins) -> Result<Look, Failure> {
        let status = status::status(pins)?;
        // It may end between the two: then there is nothing to count.
        let counters = Host::running(pins).map(|host| counters::of_running(&host)).unwrap_or_default();
        Ok(Look {
            at: Instant::now(),
            unix_time: clock::now(),
            status,
            switches: sysfs::switches(),
            events: sysfs::events(),
            counters,
        })
    }

    /// Wait, and look.
    pub fn after(pins: &Pins, wait: Duration) -> Result<Look, Failure> {
        thread::sleep(wait);
        Look::now(pins)
    }
}

//! A sched_ext scheduler that scx-upgrade did not start: found by its link, taken off for the host, and put back where the
//! host cannot be attached.
//!
//! Its user-space half is left alone. It sees that its scheduler was unregistered, as it does when it is stopped by hand,
//! and ends or not as it likes. One that is put back is held by a pin, since that process may be gone.

use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::environment;
use crate::host::pins::Pins;
use crate::kernel::bpf;
use crate::kernel::sysfs;

/// The kernel walks every task twice; busy ones by the ten thousand take it seconds.
const DETACH_TIMEOUT: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct ForeignScheduler {
    /// Its name, as the kernel shows it.
    pub name: String,
    link: OwnedFd,
    map: MapHandle,
}

impl ForeignScheduler {
    /// The one that runs.
    ///
    /// # Errors
    /// [`Error::NotReplaceable`]: it has no link, or there are several.
    pub fn find() -> Result<ForeignScheduler> {
        let name = sysfs::ops();
        let not = |why: &str| Error::NotReplaceable { ops: name.clone(), why: why.to_string() };
        let mut found = environment::scheduler_links()?;
        let (id, map) = found.pop().ok_or_else(|| not("it was attached without a link"))?;
        if !found.is_empty() {
            return Err(not("there are several links to sched_ext schedulers"));
        }
        // SAFETY: the call takes a number.
        let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
        if fd < 0 {
            return Err(std::io::Error::from_raw_os_error(-fd))
                .trying("cannot open the other scheduler's link");
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(ForeignScheduler { name, link, map })
    }

    /// Take it off, with the pin that holds it if it was put back before. An error means that it runs as before.
    pub fn detach(&self, pins: &Pins) -> Result<()> {
        // SAFETY: the descriptor is open.
        let ret = unsafe { libbpf_sys::bpf_link_detach(self.link.as_raw_fd()) };
        if ret < 0 {
            return Err(std::io::Error::from_raw_os_error(-ret))
                .trying("cannot take off the other scheduler");
        }
        if sysfs::wait_for_state(sysfs::state, "disabled", DETACH_TIMEOUT) {
            return pins.unpin(&pins.put_back_path());
        }
        Err(Error::NotEnabled {
            what: "the default scheduler".to_string(),
            state: sysfs::state(),
            reason: format!("the kernel does not let go of {}", self.name),
            words: String::new(),
        })
    }

    /// Attach it again; a pin holds it from here on.
    pub fn restore_previous(&self, pins: &Pins) -> Result<()> {
        let link = bpf::attach_struct_ops(&self.map, "cannot attach the other scheduler again")?;
        bpf::pin(&link, &pins.put_back_path())
    }
}

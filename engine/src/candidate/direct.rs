//! A policy attached by itself, without the host: the kernel's own way, and the baseline for every comparison. Nothing
//! is carried to or from it.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use libbpf_rs::Link;
use libbpf_rs::MapCore;
use libbpf_rs::MapType;

use crate::candidate::load;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names::HOST_MAP;
use crate::host::registry::Registry;
use crate::host::requirements;
use crate::kernel::btf::KernelBtf;
use crate::kernel::messages::KernelLog;
use crate::kernel::sysfs;

const TIMEOUT: Duration = Duration::from_secs(120);

/// A policy loaded to be attached directly, and perhaps attached.
#[derive(Debug)]
pub struct Direct {
    loaded: Loaded,
    data: Mapped,
    link: Option<Link>,
}

impl Direct {
    /// Load and verify, without attaching.
    ///
    /// # Errors
    /// As for a swap.
    pub fn load(policy: &Policy) -> Result<Direct> {
        sysfs::check_btf(&sysfs::btf()?)?;
        let kernel = KernelBtf::read()?;
        let inspected = policy.inspect()?;
        let mut registry = Registry::new();
        let plan = state_migrate::plan(&registry.layout, None, &inspected.schema, 0)?;
        let queues = registry.claim_queues(&inspected.schema, 0, None)?;
        let loaded = load::load_direct(policy, &inspected, &kernel, &plan.layout, &queues)?;
        let map = loaded.object.maps().find(|m| m.name() == HOST_MAP);
        let map = map.ok_or_else(|| Error::NotAPolicy { why: format!("it has no map {HOST_MAP}") })?;
        let data = Mapped::new(&map)?;
        Ok(Direct { loaded, data, link: None })
    }

    /// Attach; how long it took until the kernel said `enabled`, ns.
    ///
    /// # Errors
    /// [`Error::OtherScheduler`], or the kernel does not enable it.
    pub fn attach(&mut self) -> Result<u64> {
        if sysfs::state() != "disabled" {
            return Err(Error::OtherScheduler { ops: sysfs::ops(), state: sysfs::state() });
        }
        requirements::check_attach()?;
        let name = self.loaded.ops.name.clone();
        let mut log = KernelLog::mark();
        let begin = Instant::now();
        let mut ops = self
            .loaded
            .object
            .maps_mut()
            .find(|m| m.map_type() == MapType::StructOps)
            .ok_or_else(|| Error::NotAPolicy { why: "it has no struct_ops map".to_string() })?;
        self.link = Some(ops.attach_struct_ops().map_err(|source| Error::NotAttached {
            what: format!("cannot attach {name}"),
            source,
            words: log.words(),
        })?);
        if !sysfs::wait_for_state(sysfs::state, "enabled", TIMEOUT) {
            let reason = self.data.exit_reason().unwrap_or_default();
            return Err(Error::NotEnabled { what: name, state: sysfs::state(), reason, words: log.words() });
        }
        Ok(begin.elapsed().as_nanos() as u64)
    }

    /// Detach; how long it took until the kernel said `disabled`, ns. Where the kernel took it off before there is nothing to
    /// wait for, and who runs by now is someone else, or this one put back by who holds a pin of it.
    ///
    /// # Errors
    /// The kernel does not let go.
    pub fn detach(&mut self) -> Result<u64> {
        let is_off = self.exit_reason().is_some();
        let begin = Instant::now();
        drop(self.link.take());
        if !is_off && !sysfs::wait_for_state(sysfs::state, "disabled", TIMEOUT) {
            return Err(Error::NotEnabled {
                what: "the default scheduler again".to_string(),
                state: sysfs::state(),
                reason: String::new(),
                words: String::new(),
            });
        }
        Ok(begin.elapsed().as_nanos() as u64)
    }

    /// What keeps it attached, once it is.
    pub(crate) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(Link::as_fd)
    }

    /// Why the kernel took it off, if it did.
    pub fn exit_reason(&self) -> Option<String> {
        self.data.exit_reason()
    }

    /// The policy as loaded.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}

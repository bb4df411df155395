//! The kernel that runs, asked through the host's pins.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use libbpf_rs::Link;
use libbpf_rs::MapCore;
use libbpf_rs::MapHandle;
use libbpf_rs::Object;
use libbpf_rs::query::LinkTypeInfo;
use state_migrate::Schema;

use crate::candidate::load;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::OpsRequirements;
use crate::host::loaded::Loaded;
use crate::host::lock::Lock;
use crate::host::object;
use crate::host::object::HOST_OPS;
use crate::host::pins::Pins;
use crate::host::requirements;
use crate::kernel::bpf;
use crate::kernel::btf::KernelBtf;
use crate::kernel::messages::KernelLog;
use crate::kernel::sysfs;
use crate::observe::report::Report;
use crate::observe::report::Restored;
use crate::observe::snapshot;
use crate::observe::snapshot::Prepared;
use crate::os::realtime::Children;
use crate::os::realtime::RealtimeGuard;
use crate::transition::foreign_scheduler::ForeignScheduler;
use crate::transition::kernel::Kernel;
use crate::transition::reattach::other_version;

/// The link that is pinned, and the struct_ops map behind it, which can be attached again.
#[derive(Debug)]
pub struct Attached {
    link: Link,
    map: MapHandle,
}

impl Kernel for Pins {
    type Btf = KernelBtf;
    type Lock = Lock;
    type Link = OwnedFd;
    type Attached = Attached;
    type Foreign = ForeignScheduler;

    fn lock(&self) -> Result<Lock> {
        Pins::lock(self)
    }

    fn begin_realtime(&self, children: Children) -> RealtimeGuard {
        RealtimeGuard::begin(children)
    }

    fn is_empty(&self) -> bool {
        Pins::is_empty(self)
    }

    fn enable_seq(&self) -> u64 {
        sysfs::enable_seq()
    }

    fn btf(&self) -> Result<KernelBtf> {
        KernelBtf::read()
    }

    fn check_for_host(&self) -> Result<()> {
        requirements::check_for_host()
    }

    fn check_attach(&self) -> Result<()> {
        requirements::check_attach()
    }

    fn first_terms(btf: &KernelBtf, asks: &OpsRequirements, minimal: bool) -> AttachConfig {
        AttachConfig::first(asks, minimal, btf)
    }

    fn why_not(btf: &KernelBtf, terms: &AttachConfig, asks: &OpsRequirements) -> String {
        terms.why_not(asks, btf)
    }

    fn inspect(policy: &Policy) -> Result<Inspected> {
        policy.inspect()
    }

    fn asks_of(btf: &KernelBtf, policy: &Policy) -> Result<OpsRequirements> {
        load::asks_of(policy, btf)
    }

    fn load(
        host: &Host,
        policy: &Policy,
        inspected: &Inspected,
        btf: &KernelBtf,
        target: &LoadTarget<'_>,
    ) -> Result<Loaded> {
        load::load_for_host(policy, inspected, btf, &host.shared(), target)
    }

    fn load_host(&self, btf: &KernelBtf, terms: &AttachConfig) -> Result<Object> {
        let mut open = object::open_host(btf, terms)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if self.map_path(&name).exists() {
                let pinned = self.map(&name)?;
                map.reuse_fd(pinned.as_fd()).trying(format!("cannot take over the host's map {name}"))?;
            }
        }
        object::load_host(open)
    }

    fn pin_host(&self, object: &mut Object) -> Result<()> {
        Pins::pin_host(self, object)
    }

    fn identity(host: &Host) -> Option<u32> {
        host.identity()
    }

    fn attach(&self, object: &mut Object) -> Result<OwnedFd> {
        watch_exits(self, object)?;
        let mut ops = object
            .maps_mut()
            .find(|m| m.name() == HOST_OPS)
            .ok_or_else(|| not_enabled("its object has no struct_ops map".to_string()))?;
        let mut log = KernelLog::mark();
        let link = ops.attach_struct_ops().map_err(|source| Error::NotAttached {
            what: "cannot attach the host".to_string(),
            source,
            words: log.words(),
        })?;
        link.as_fd().try_clone_to_owned().trying("cannot keep the host's link")
    }

    fn pin_link(&self, link: OwnedFd) -> Result<()> {
        bpf::pin(&link, &self.link())
    }

    fn attached(&self) -> Result<Attached> {
        let link = Link::open(self.link()).trying("cannot open the host's link")?;
        let info = link.info().trying("cannot read the host's link")?;
        let LinkTypeInfo::StructOps(ops) = info.info else {
            return Err(not_enabled("its pinned link is of another type".to_string()));
        };
        let map = MapHandle::from_map_id(ops.map_id).trying("cannot open the host's struct_ops map")?;
        Ok(Attached { link, map })
    }

    fn unpin_link(&self) -> Result<()> {
        fs::remove_file(self.link()).trying("cannot unpin the host's link")
    }

    fn detach(&self, attached: &Attached) -> Result<()> {
        attached.link.detach().trying("cannot detach the host")
    }

    fn pin_attached(&self, attached: &Attached) -> Result<()> {
        bpf::pin(&attached.link, &self.link())
    }

    fn attach_again(&self, attached: &Attached) -> Result<OwnedFd> {
        bpf::attach_struct_ops(&attached.map, "cannot attach the old host again")
    }

    fn retire_link(&self) -> Result<()> {
        Pins::retire_link(self)
    }

    fn remove_host(&self) -> Result<()> {
        Pins::remove_host(self)
    }

    fn remove_all(&self) -> Result<()> {
        Pins::remove_all(self)
    }

    fn foreign(&self) -> Result<ForeignScheduler> {
        ForeignScheduler::find()
    }

    fn name_of(foreign: &ForeignScheduler) -> &str {
        &foreign.name
    }

    fn detach_foreign(&self, foreign: &ForeignScheduler) -> Result<()> {
        foreign.detach(self)
    }

    fn restore_foreign(&self, foreign: &ForeignScheduler) -> Result<()> {
        foreign.restore_previous(self)
    }

    fn finish_replacement(&self) -> Result<()> {
        other_version::finish_move(self)
    }

    fn replace_host(&self, policy: &Policy) -> Result<(Host, Loaded, Report)> {
        other_version::replace(self, policy)
    }

    fn read_snapshot(path: &Path, schema: &Schema, policy: (&str, &str)) -> Result<Prepared> {
        snapshot::prepare(path, schema, policy)
    }

    fn restore(host: &Host, prepared: &Prepared, schema: &Schema, slot: u8) -> Result<Restored> {
        snapshot::apply(host, prepared, schema, slot)
    }
}

/// Where the host needs a program to see tasks exit, attach that, in place of the one that an earlier host of this shared memory had.
fn watch_exits(pins: &Pins, object: &Object) -> Result<()> {
    let Some(program) = object.progs_mut().find(|p| p.name() == object::TASK_EXITS && p.autoload()) else {
        return Ok(());
    };
    let mut link = program.attach().trying("cannot see tasks exit")?;
    pins.unpin(&pins.exits_link())?;
    link.pin(pins.exits_link()).trying("cannot pin the link of what sees tasks exit")
}

fn not_enabled(reason: String) -> Error {
    Error::NotEnabled { what: "the host".to_string(), state: sysfs::state(), reason, words: String::new() }
}

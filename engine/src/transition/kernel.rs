//! What a change asks of the kernel, besides what it asks about the resident host: to load, to attach and to detach, and what the
//! machine and its other schedulers say. See [`Resident`].

use std::path::Path;

use state_migrate::Schema;

use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Result;
use crate::host::Host;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::OpsRequirements;
use crate::host::loaded::Loaded;
use crate::host::resident::Resident;
use crate::observe::report::Report;
use crate::observe::report::Restored;
use crate::observe::snapshot::Prepared;
use crate::os::realtime::Children;
use crate::os::realtime::RealtimeGuard;

/// See the module.
pub trait Kernel: Resident {
    /// The kernel's types.
    type Btf;
    /// Held by the one command that may change something.
    type Lock;
    /// What keeps a scheduler attached, as long as this process has it or it is pinned.
    type Link;
    /// The host that is attached. It can be attached again after it was detached.
    type Attached;
    /// A scheduler that is not of this project.
    type Foreign;

    /// Waits for another command that changes something, and keeps others out.
    fn lock(&self) -> Result<Self::Lock>;

    /// Puts this thread above whatever policy runs.
    fn begin_realtime(&self, children: Children) -> RealtimeGuard;

    /// Is anything pinned?
    fn is_empty(&self) -> bool;

    /// How many schedulers have been enabled since boot.
    fn enable_seq(&self) -> u64;

    /// Reads the kernel's types.
    fn btf(&self) -> Result<Self::Btf>;

    /// Can a host be started at all?
    fn check_for_host(&self) -> Result<()>;

    /// Would the kernel let a scheduler be attached?
    fn check_attach(&self) -> Result<()>;

    /// The terms of a host that is started for a policy that asks for this.
    fn first_terms(btf: &Self::Btf, asks: &OpsRequirements, minimal: bool) -> AttachConfig;

    /// Why these terms do not suit a policy, in words.
    fn why_not(btf: &Self::Btf, terms: &AttachConfig, asks: &OpsRequirements) -> String;

    /// Step 1: what can be known of a policy without loading it.
    fn inspect(policy: &Policy) -> Result<Inspected>;

    /// What a policy asks of the terms of its host.
    fn asks_of(btf: &Self::Btf, policy: &Policy) -> Result<OpsRequirements>;

    /// Step 3: loads a policy and has it verified.
    fn load(
        host: &Host<Self>,
        policy: &Policy,
        inspected: &Inspected,
        btf: &Self::Btf,
        target: &LoadTarget<'_>,
    ) -> Result<Loaded<Self::Object>>;

    /// Loads the host's programs, to be attached on these terms, over those of its maps that are pinned.
    fn load_host(&self, btf: &Self::Btf, terms: &AttachConfig) -> Result<Self::Object>;

    /// Pins what of the host must outlive this process.
    fn pin_host(&self, object: &mut Self::Object) -> Result<()>;

    /// Which host is pinned: no other has had this number since boot.
    fn identity(host: &Host<Self>) -> Option<u32>;

    /// Attaches a host that was loaded. The kernel may disable it yet.
    fn attach(&self, object: &mut Self::Object) -> Result<Self::Link>;

    /// Pins a link, so that the scheduler outlives this process.
    fn pin_link(&self, link: Self::Link) -> Result<()>;

    /// Opens the pinned link and what it attaches.
    fn attached(&self) -> Result<Self::Attached>;

    /// Removes the pin of the link.
    fn unpin_link(&self) -> Result<()>;

    /// Detaches it. If this fails, it is attached as before.
    fn detach(&self, attached: &Self::Attached) -> Result<()>;

    /// Pins the link of what could not be detached again.
    fn pin_attached(&self, attached: &Self::Attached) -> Result<()>;

    /// Attaches what was detached.
    fn attach_again(&self, attached: &Self::Attached) -> Result<Self::Link>;

    /// Detaches what the pinned link is of, if there is one, and removes the pin.
    fn retire_link(&self) -> Result<()>;

    /// Removes all pins of the host, the link's first.
    fn remove_host(&self) -> Result<()>;

    /// The same, and the pin of a scheduler of someone else's that was put back.
    fn remove_all(&self) -> Result<()>;

    /// Finds the scheduler that runs and is not of this project.
    fn foreign(&self) -> Result<Self::Foreign>;

    /// Its name.
    fn name_of(foreign: &Self::Foreign) -> &str;

    /// Detaches it. If this fails, it runs as before.
    fn detach_foreign(&self, foreign: &Self::Foreign) -> Result<()>;

    /// Attaches it again, held by a pin.
    fn restore_foreign(&self, foreign: &Self::Foreign) -> Result<()>;

    /// Finishes, or throws away, what a killed replacement of a host of another version left.
    fn finish_replacement(&self) -> Result<()>;

    /// Replaces a host of another version by one with this policy.
    fn replace_host(&self, policy: &Policy) -> Result<(Host<Self>, Loaded<Self::Object>, Report)>;

    /// Reads a snapshot for a policy of this schema, name and version.
    fn read_snapshot(path: &Path, schema: &Schema, policy: (&str, &str)) -> Result<Prepared>;

    /// Writes a snapshot into the records of the policy in `slot`.
    fn restore(host: &Host<Self>, prepared: &Prepared, schema: &Schema, slot: u8) -> Result<Restored>;
}

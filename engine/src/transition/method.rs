//! How a commit is done: by one store, by one store behind a quiescence, or by a reattach.

use crate::error::Result;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::OpsRequirements;
use crate::host::pins::Pins;
use crate::host::registry::Generation;
use crate::host::registry::Pending;
use crate::host::registry::Reattach;
use crate::host::scopes::ScopeParts;
use crate::observe::report::Report;
use crate::os::priority;
use crate::transition::commit::adopt;
use crate::transition::kernel::Kernel;
use crate::transition::quiesce;
use crate::transition::reattach;
use crate::transition::recover;

/// The host, loaded ahead of a reattach: verified, over the maps of the one that is pinned.
#[derive(Debug)]
pub struct PreloadedHost<K: Kernel = Pins> {
    object: Box<K::Object>,
    terms: AttachConfig,
    maps: Option<u32>,
}

impl<K: Kernel> PreloadedHost<K> {
    /// Load it, to be attached on `terms`.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn load(host: &Host<K>, terms: &AttachConfig) -> Result<PreloadedHost<K>> {
        PreloadedHost::load_with(host, &priority::lowered(|| host.pins.btf())?, terms)
    }

    fn load_with(host: &Host<K>, kernel: &K::Btf, terms: &AttachConfig) -> Result<PreloadedHost<K>> {
        let object = Box::new(priority::lowered(|| host.pins.load_host(kernel, terms))?);
        Ok(PreloadedHost { object, terms: terms.clone(), maps: K::identity(host) })
    }

    /// Can it be attached in the place of this host, on these terms? Not where that was stopped and another started
    /// meanwhile, which has other maps.
    pub fn is_for(&self, host: &Host<K>, terms: &AttachConfig) -> bool {
        self.terms == *terms && self.maps.is_some() && self.maps == K::identity(host)
    }

    pub(crate) fn into_method(self) -> CommitMethod<K> {
        CommitMethod::Reattach { object: self.object, terms: self.terms }
    }
}

/// How the commit is done.
pub(crate) enum CommitMethod<K: Kernel> {
    /// By one store; behind a hold in this slot, if there is one.
    InPlace { hold: Option<u8> },
    /// By a reattach. The host's programs were loaded again for it.
    Reattach { object: Box<K::Object>, terms: AttachConfig },
}

impl<K: Kernel> CommitMethod<K> {
    pub fn in_place() -> CommitMethod<K> {
        CommitMethod::InPlace { hold: None }
    }

    /// `asks`: what the policy to come asks for.
    pub(crate) fn find(host: &Host<K>, kernel: &K::Btf, asks: &OpsRequirements) -> Result<CommitMethod<K>> {
        let terms = &host.registry.terms;
        if host.attached && terms.satisfies(asks) {
            return Ok(CommitMethod::in_place());
        }
        host.pins.check_attach()?;
        Ok(PreloadedHost::load_with(host, kernel, &terms.extended_for(asks))?.into_method())
    }

    pub(crate) fn is_in_place(&self) -> bool {
        matches!(self, CommitMethod::InPlace { .. })
    }

    pub fn pending(
        &self,
        host: &Host<K>,
        generation: &Generation,
        after: Active,
        sweeper: Option<u8>,
    ) -> Pending {
        let (hold, reattach) = match self {
            CommitMethod::InPlace { hold } => (*hold, None),
            CommitMethod::Reattach { terms, .. } => {
                (None, Some(Reattach { from: host.registry.terms.clone(), to: terms.clone() }))
            }
        };
        Pending { generation: generation.clone(), epoch: after.epoch, sweeper, hold, reattach }
    }

    /// If the commit is one store, makes the host ready for it. Otherwise gives `self` back.
    ///
    /// # Errors
    /// This.
    pub(crate) fn in_one_store(
        self,
        host: &Host<K>,
        after: Active,
    ) -> std::result::Result<(), CommitMethod<K>> {
        match self {
            CommitMethod::InPlace { hold: None } => {
                adopt(host, after);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Step 5, where it takes more than one store. True: records of these scopes are swept already.
    pub(crate) fn commit(
        self,
        host: &mut Host<K>,
        after: Active,
        scopes: &[&'static ScopeParts],
        report: &mut Report,
    ) -> Result<bool> {
        match self {
            CommitMethod::InPlace { hold: Some(slot) } => {
                if let Some(pending) = &host.registry.pending {
                    report.swept = quiesce::run(host, pending, slot, scopes)?.report(&mut report.timings);
                }
            }
            CommitMethod::Reattach { mut object, .. } => {
                reattach::switch(host, &mut object, after, scopes)?.report(report);
                recover::remake_queues(host)?;
            }
            CommitMethod::InPlace { hold: None } => {}
        }
        Ok(!report.swept.is_empty())
    }
}

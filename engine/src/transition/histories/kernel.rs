//! A kernel in memory: what sched_ext, bpffs and the resident host's programs do, as far as commands depend on it. Each call
//! that changes something can fail, can be the last of a command that is killed, and can find the scheduler ejected.
//!
//! The state, and what no command may do to it, are in `world.rs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::panic;
use std::path::Path;
use std::rc::Rc;

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Plan;
use state_migrate::Schema;

use crate::candidate::load::AttachConstraint;
use crate::candidate::load::LoadTarget;
use crate::candidate::policy::Inspected;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::abi::Active;
use crate::host::abi::NR_PLANS;
use crate::host::abi::QueueArgs;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::OpsRequirements;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::names;
use crate::host::registry::Registry;
use crate::host::resident::Resident;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::SweepTarget;
use crate::host::sweep::Swept;
use crate::host::worker_pool::WorkerPool;
use crate::kernel::ops::Ops;
use crate::kernel::topology::Topology;
use crate::kernel::variables::Variables;
use crate::observe::report::Report;
use crate::observe::report::Restored;
use crate::observe::snapshot::Prepared;
use crate::os::realtime::Children;
use crate::os::realtime::RealtimeGuard;
use crate::transition::histories::world::EXIT_UNREG;
use crate::transition::histories::world::Fault;
use crate::transition::histories::world::Pinned;
use crate::transition::histories::world::Programs;
use crate::transition::histories::world::Scheduler;
use crate::transition::histories::world::World;
use crate::transition::interrupt;
use crate::transition::kernel::Kernel;

/// What a policy's object is here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FakePolicy {
    pub schema: Schema,
    /// Ops flags that the host must be attached with.
    pub flags: u64,
    /// Ops that a host which was started for another policy may lack.
    pub uses: BTreeSet<String>,
}

/// How a killed command unwinds.
pub(super) struct Killed;

/// Something that the kernel has verified.
#[derive(Debug, Clone)]
pub(super) enum FakeObject {
    /// The host's programs.
    Host { terms: AttachConfig },
    /// A policy's.
    Policy { load: u64, queues: Vec<u64> },
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeKernel(pub Rc<RefCell<World>>);

impl FakeKernel {
    /// A call that changes something.
    fn call<T>(&self, what: &str, effect: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let mut world = self.0.borrow_mut();
        if world.dead {
            // Something is dropped while the stack unwinds, which a kill does not do.
            return Err(io::Error::other("killed")).trying(what);
        }
        world.look();
        world.calls += 1;
        let fault = world.fault.filter(|(call, _)| *call == world.calls).map(|(_, fault)| fault);
        if fault == Some(Fault::Ejects) {
            world.eject();
        }
        if fault == Some(Fault::Signal) {
            interrupt::signal();
        }
        if fault == Some(Fault::Fails) {
            return Err(io::Error::from_raw_os_error(libc::EIO)).trying(what);
        }
        let done = if fault == Some(Fault::KilledBefore) { None } else { Some(effect(&mut world)) };
        world.look();
        match done {
            Some(done) if fault != Some(Fault::KilledAfter) => done,
            _ => {
                world.dead = true;
                drop(world);
                panic::resume_unwind(Box::new(Killed))
            }
        }
    }

    fn read<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.0.borrow())
    }

    fn set_slot(&self, slot: u8, programs: Option<Programs>) -> Result<()> {
        // In two calls: a command can be killed when part of the arrays is done.
        self.call("cannot change a slot", |world| {
            let runs = world.host_enabled() && world.active().is_some_and(|active| active.slot == slot);
            if runs || world.in_flight.contains(&slot) {
                world.accuse(format!("slot {slot} changes while ops of it may run"));
            }
            world.half_filled.insert(slot);
            Ok(())
        })?;
        self.call("cannot change a slot", |world| {
            world.half_filled.remove(&slot);
            world.slots[usize::from(slot)] = programs;
            Ok(())
        })
    }
}

fn policy_of(policy: &Policy) -> Result<FakePolicy> {
    serde_json::from_slice(policy.object()).map_err(|e| Error::NotAPolicy { why: e.to_string() })
}

impl Resident for FakeKernel {
    type Object = FakeObject;
    type Maps = ();
    type Compiled = ();

    fn state(&self) -> String {
        self.read(|world| if world.enabled.is_some() { "enabled" } else { "disabled" }.to_owned())
    }

    fn ops(&self) -> String {
        self.read(|world| match world.enabled {
            Some(Scheduler::Host { .. }) => names::NAME.to_owned(),
            Some(Scheduler::Foreign) => "foreign".to_owned(),
            None => String::new(),
        })
    }

    fn topology(&self) -> Result<Topology> {
        let cpus = vec![0, 0];
        Ok(Topology { llc_of_cpu: cpus.clone(), nr_llcs: 1, core_of_cpu: cpus.clone(), next_sibling: cpus })
    }

    fn has_link(&self) -> bool {
        self.read(|world| world.link_pinned)
    }

    fn has_state(&self) -> bool {
        self.read(|world| world.pinned != Pinned::Nothing)
    }

    fn is_half_replaced(&self) -> bool {
        false
    }

    fn hidden_host(&self) -> Option<Error> {
        None
    }

    fn control_word(&self) -> Option<Active> {
        self.read(World::active)
    }

    fn open(&self) -> Result<((), Mapped)> {
        self.read(|world| match (&world.memory, world.pinned) {
            (Some(memory), Pinned::All) => Ok(((), memory.same())),
            _ => {
                let source = io::Error::from_raw_os_error(libc::ENOENT);
                Err(Error::Bpf { what: "cannot open a pin".to_owned(), source: source.into() })
            }
        })
    }

    fn load_registry(&self, (): &()) -> Result<Registry> {
        let registry = self.read(|world| world.registry.clone());
        registry.ok_or_else(|| Error::Registry { why: "it is empty".to_owned() })
    }

    fn save_registry(&self, (): &(), registry: &Registry) -> Result<()> {
        self.call("cannot write the registry", |world| {
            world.registry = Some(registry.clone());
            Ok(())
        })
    }

    fn fill(&self, (): &(), slot: u8, loaded: &Loaded<FakeObject>) -> Result<()> {
        let FakeObject::Policy { load, queues } = loaded.object.clone() else {
            return Err(Error::NotAPolicy { why: "a slot is filled with the host".to_owned() });
        };
        self.set_slot(slot, Some(Programs { load, queues }))
    }

    fn empty(&self, (): &(), slot: u8) -> Result<()> {
        self.set_slot(slot, None)
    }

    fn settle(&self) -> Result<()> {
        self.call("cannot wait for a grace period", |world| {
            world.in_flight.clear();
            Ok(())
        })
    }

    fn start_handover(&self, _: bool) -> Result<i32> {
        self.call("cannot start the timer", |_| Ok(0))
    }

    fn run_on_queue(&self, program: &str, args: &mut QueueArgs) -> Result<i32> {
        self.call("cannot run a program", |world| {
            let queue = args.base;
            args.existing = u64::from(world.queues.contains_key(&queue));
            args.queued = world.queues.get(&queue).copied().unwrap_or(0);
            match program {
                _ if !world.host_enabled() => return Ok(-libc::ENODEV),
                "create_queues" => {
                    world.queues.entry(queue).or_insert(0);
                }
                "count_queues" => {}
                "drain_queues" => {
                    (args.moved, args.queued) = (args.queued, 0);
                    if let Some(tasks) = world.queues.get_mut(&queue) {
                        *tasks = 0;
                    }
                }
                "destroy_queues" if args.queued == 0 => {
                    let slots = world.in_flight.iter().copied().chain(world.active().map(|a| a.slot));
                    let users: Vec<u8> = slots
                        .filter(|slot| {
                            let programs = world.slots.get(usize::from(*slot)).and_then(Option::as_ref);
                            programs.is_some_and(|programs| programs.queues.contains(&queue))
                        })
                        .collect();
                    if !users.is_empty() {
                        world.accuse(format!("queue {queue:#x} goes while slots {users:?} may ask for it"));
                    }
                    world.queues.remove(&queue);
                }
                "destroy_queues" => {}
                other => world.accuse(format!("there is no program {other}")),
            }
            Ok(0)
        })
    }

    fn rescue(&self) -> Result<u64> {
        self.call("cannot find lost tasks", |_| Ok(0))
    }

    fn compile(&self, (): &(), _: &Plan) -> Option<()> {
        None
    }

    fn sweep_all(
        &self,
        _: SweepTarget<'_>,
        scopes: &[&ScopeParts],
        _: Option<&()>,
        slot: Option<u8>,
        _: &WorkerPool,
    ) -> Vec<Result<Swept>> {
        let sweep = |scope: &&ScopeParts| {
            self.call("cannot sweep", |world| {
                if !world.in_flight.is_empty() {
                    let slots = world.in_flight.clone();
                    world.accuse(format!("a sweep while ops of slots {slots:?} may be in flight"));
                }
                if let Some(slot) = slot
                    && world.slots[usize::from(slot)].is_none()
                {
                    world.accuse(format!("a sweep by the policy in slot {slot}, which is empty"));
                }
                Ok(Swept { scope: scope.scope.to_string(), visited: 1, applied: 1, missing: 0, took_ns: 0 })
            })
        };
        let swept: Vec<_> = scopes.iter().map(sweep).collect();
        if swept.iter().all(Result::is_ok) {
            let mut world = self.0.borrow_mut();
            world.swept_epoch = world.active().map_or(0, |active| active.epoch);
        }
        swept
    }

    fn walk_tasks(&self, _: SweepTarget<'_>) {}
}

impl Kernel for FakeKernel {
    type Btf = ();
    type Lock = ();
    type Link = ();
    type Attached = Scheduler;
    type Foreign = ();

    fn lock(&self) -> Result<()> {
        Ok(())
    }

    fn begin_realtime(&self, _: Children) -> RealtimeGuard {
        RealtimeGuard::none()
    }

    fn is_empty(&self) -> bool {
        self.read(|world| world.pinned == Pinned::Nothing && !world.link_pinned && !world.foreign_pinned)
    }

    fn enable_seq(&self) -> u64 {
        self.read(|world| world.enable_seq)
    }

    fn btf(&self) -> Result<()> {
        self.call("cannot read the BTF", |_| Ok(()))
    }

    fn check_for_host(&self) -> Result<()> {
        Ok(())
    }

    fn check_attach(&self) -> Result<()> {
        self.call("cannot be attached", |_| Ok(()))
    }

    fn first_terms((): &(), asks: &OpsRequirements, minimal: bool) -> AttachConfig {
        let all: BTreeSet<String> = ["tick".to_owned(), "runnable".to_owned()].into();
        let spared = if minimal { all.difference(&asks.uses).cloned().collect() } else { BTreeSet::new() };
        AttachConfig { flags: asks.flags, spared }
    }

    fn why_not((): &(), _: &AttachConfig, _: &OpsRequirements) -> String {
        "the terms do not suit it".to_owned()
    }

    fn inspect(policy: &Policy) -> Result<Inspected> {
        Ok(Inspected { schema: policy_of(policy)?.schema, variables: Variables::default() })
    }

    fn asks_of((): &(), policy: &Policy) -> Result<OpsRequirements> {
        let policy = policy_of(policy)?;
        Ok(OpsRequirements { flags: policy.flags, uses: policy.uses })
    }

    fn load(
        host: &Host<FakeKernel>,
        policy: &Policy,
        inspected: &Inspected,
        (): &(),
        target: &LoadTarget<'_>,
    ) -> Result<Loaded<FakeObject>> {
        let fake = policy_of(policy)?;
        let asks = OpsRequirements { flags: fake.flags, uses: fake.uses.clone() };
        if let AttachConstraint::These(terms) = target.on
            && !terms.satisfies(&asks)
        {
            let why = FakeKernel::why_not(&(), terms, &asks);
            return Err(Error::NeedsReattach { policy: inspected.schema.policy.clone(), why });
        }
        let (load, queues) = (target.load, target.queues.to_vec());
        host.pins.call("cannot load the policy", |_| Ok(()))?;
        Ok(Loaded {
            object: FakeObject::Policy { load, queues },
            ops: Ops::of_programs(&inspected.schema.policy, fake.uses.iter().map(String::as_str)),
            lacks: 0,
            asks,
            load,
            held: Vec::new(),
            variables: Variables::default(),
            places: BTreeMap::new(),
            warnings: Vec::new(),
        })
    }

    fn load_host(&self, (): &(), terms: &AttachConfig) -> Result<FakeObject> {
        self.call("cannot load the host", |_| Ok(FakeObject::Host { terms: terms.clone() }))
    }

    fn pin_host(&self, _: &mut FakeObject) -> Result<()> {
        let memory = Mapped::anonymous();
        self.call("cannot pin the host", |world| {
            world.pinned = Pinned::Part;
            world.identity += 1;
            world.memory = Some(memory);
            world.registry = None;
            world.slots = Default::default();
            world.half_filled.clear();
            Ok(())
        })?;
        self.call("cannot pin the host", |world| {
            world.pinned = Pinned::All;
            Ok(())
        })
    }

    fn identity(host: &Host<FakeKernel>) -> Option<u32> {
        Some(host.pins.read(|world| world.identity))
    }

    fn attach(&self, object: &mut FakeObject) -> Result<()> {
        let FakeObject::Host { terms } = object else {
            return Err(Error::NotAPolicy { why: "a policy is attached".to_owned() });
        };
        self.call("cannot attach the host", |world| {
            world.enable(Scheduler::Host { terms: terms.clone() })?;
            world.link_held = true;
            Ok(())
        })
    }

    fn pin_link(&self, (): ()) -> Result<()> {
        let pinned = self.call("cannot pin the link", |world| {
            world.link_pinned = true;
            Ok(())
        });
        // The descriptor is closed either way.
        let mut world = self.0.borrow_mut();
        if pinned.is_err() && !world.link_pinned && world.host_enabled() {
            world.disable(EXIT_UNREG);
        }
        world.link_held = false;
        pinned
    }

    fn attached(&self) -> Result<Scheduler> {
        self.call("cannot open the link", |world| {
            let gone = || io::Error::from_raw_os_error(libc::ENOENT);
            if !world.link_pinned {
                return Err(gone()).trying("cannot open the link");
            }
            world.link_held = true;
            world.enabled.clone().ok_or_else(gone).trying("cannot open the link")
        })
    }

    fn unpin_link(&self) -> Result<()> {
        self.call("cannot unpin the link", |world| {
            world.link_pinned = false;
            Ok(())
        })
    }

    fn detach(&self, _: &Scheduler) -> Result<()> {
        self.call("cannot detach the host", |world| {
            world.disable(EXIT_UNREG);
            Ok(())
        })
    }

    fn pin_attached(&self, _: &Scheduler) -> Result<()> {
        self.call("cannot pin the link", |world| {
            world.link_pinned = true;
            Ok(())
        })
    }

    fn attach_again(&self, attached: &Scheduler) -> Result<()> {
        self.call("cannot attach the old host", |world| {
            world.enable(attached.clone())?;
            world.link_held = true;
            Ok(())
        })
    }

    fn retire_link(&self) -> Result<()> {
        if !self.has_link() {
            return Ok(());
        }
        self.call("cannot unpin the link", |world| {
            if world.host_enabled() {
                world.disable(EXIT_UNREG);
            }
            world.link_pinned = false;
            Ok(())
        })
    }

    fn remove_host(&self) -> Result<()> {
        self.retire_link()?;
        if self.read(|world| world.pinned) == Pinned::Nothing {
            return Ok(());
        }
        self.call("cannot unpin", |world| {
            world.pinned = Pinned::Part;
            Ok(())
        })?;
        self.call("cannot unpin", |world| {
            world.pinned = Pinned::Nothing;
            world.memory = None;
            world.registry = None;
            Ok(())
        })
    }

    fn remove_all(&self) -> Result<()> {
        self.remove_host()?;
        if !self.read(|world| world.foreign_pinned) {
            return Ok(());
        }
        self.call("cannot unpin", |world| {
            world.foreign_pinned = false;
            Ok(())
        })
    }

    fn foreign(&self) -> Result<()> {
        Ok(())
    }

    fn name_of((): &()) -> &str {
        "foreign"
    }

    fn detach_foreign(&self, (): &()) -> Result<()> {
        self.call("cannot detach the other scheduler", |world| {
            world.disable(EXIT_UNREG);
            Ok(())
        })?;
        self.call("cannot unpin the other scheduler", |world| {
            world.foreign_pinned = false;
            Ok(())
        })
    }

    fn restore_foreign(&self, (): &()) -> Result<()> {
        self.call("cannot attach the other scheduler again", |world| {
            world.enable(Scheduler::Foreign)?;
            world.foreign_pinned = true;
            Ok(())
        })
    }

    fn finish_replacement(&self) -> Result<()> {
        Ok(())
    }

    fn replace_host(&self, _: &Policy) -> Result<(Host<FakeKernel>, Loaded<FakeObject>, Report)> {
        Err(Error::NothingRunning)
    }

    fn read_snapshot(_: &Path, _: &Schema, _: (&str, &str)) -> Result<Prepared> {
        Err(Error::NothingRunning)
    }

    fn restore(_: &Host<FakeKernel>, _: &Prepared, _: &Schema, _: u8) -> Result<Restored> {
        Err(Error::NothingRunning)
    }
}

/// How many epochs a record may be behind before its plans are gone.
pub(super) const MAX_BEHIND: u32 = NR_PLANS as u32 - 1;

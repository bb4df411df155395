//! Histories of commands, tried against a kernel in memory (`histories/kernel.rs`): each command can be killed at any of its
//! calls, any call can fail, and the kernel can eject the scheduler at any call. What SPECIFICATION.md promises of commands holds
//! after each: what they say is true, nothing waits for ever, and the next command brings in order what a killed one left.

#![allow(clippy::unwrap_used)]

mod kernel;
mod world;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;

use proptest::prelude::*;
use state_migrate::Schema;
use state_migrate::Scope;
use state_migrate::Signature;
use state_migrate::Type;
use state_migrate::rule::Conversion;
use state_migrate::rule::Rule;
use state_migrate::schema::Column;
use state_migrate::schema::Queue;
use state_migrate::schema::QueueOrder;
use state_migrate::schema::QueueSpan;

use self::kernel::FakeKernel;
use self::kernel::FakePolicy;
use self::kernel::Killed;
use self::kernel::MAX_BEHIND;
use self::world::Fault;
use self::world::Pinned;
use self::world::Scheduler;
use self::world::World;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::exit::Exit;
use crate::host::Host;
use crate::host::registry::RollbackTarget;
use crate::host::resident::Resident;
use crate::transition::effect;
use crate::transition::interrupt;
use crate::transition::options::ExpectedAction;
use crate::transition::options::SwapOptions;
use crate::transition::stop;
use crate::transition::take_over;

/// Number of policies to choose from.
const POLICIES: usize = 6;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A command, and what becomes of it at which of its calls.
    Command(Command, Option<(u32, Fault)>),
    /// The kernel ejects the host.
    Eject,
    /// Someone starts a scheduler that is not of this project, where none runs.
    Foreign,
    /// That scheduler ends.
    ForeignEnds,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Run { policy: usize, replace: bool, minimal: bool },
    Swap { policy: usize, may_reattach: bool, no_carry: bool },
    Rollback { may_reattach: bool },
    Recover,
    Stop,
}

/// A policy of the palette: with other state and queues than the one before, one with a conversion of its own, one with another
/// flag.
fn policy(number: usize) -> Policy {
    let int = |size| Type::Int { size, signed: false };
    let column = |name: &str, ty: Type, rule: Rule| Column {
        name: name.to_owned(),
        ty,
        default: None,
        unit: None,
        momentary: false,
        rule,
    };
    let queue = |name: &str| Queue { name: name.to_owned(), order: QueueOrder::Fifo, span: QueueSpan::One };
    let convert = Conversion { program: "forth".to_owned(), inverse: Some("back".to_owned()) };
    let converted = Rule { convert: Some(convert), ..Rule::default() };
    let columns = match number {
        0 => vec![],
        1 | 3 => vec![column("x", int(4), Rule { saturate: true, ..Rule::default() })],
        2 => vec![column("x", int(8), Rule::default()), column("y", int(4), Rule::default())],
        4 => vec![column("x", int(2), converted)],
        _ => vec![column("y", int(4), Rule::default())],
    };
    let queues = match number {
        0 => vec![queue("a")],
        1 => vec![queue("a"), queue("b")],
        2 | 4 => vec![queue("c")],
        3 => vec![queue("b")],
        _ => vec![],
    };
    let conversions = match number {
        4 => BTreeMap::from([
            ("forth".to_owned(), Signature { number: 0, from: int(4), to: int(2) }),
            ("back".to_owned(), Signature { number: 1, from: int(2), to: int(4) }),
        ]),
        _ => BTreeMap::new(),
    };
    let schema = Schema {
        policy: "p".to_owned(),
        scopes: BTreeMap::from([(Scope::Task, columns)]),
        queues,
        structs: BTreeMap::new(),
        conversions,
    };
    let uses: &[&str] = if number == 5 { &["tick", "runnable"] } else { &["enqueue"] };
    let uses: BTreeSet<String> = uses.iter().map(|op| (*op).to_owned()).collect();
    let fake = FakePolicy { schema, flags: if number == 3 { 2 } else { 0 }, uses };
    Policy::of_object(serde_json::to_vec(&fake).unwrap(), &number.to_string())
}

/// What a command is compared with.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    enabled: Option<Scheduler>,
    generation: u32,
    /// What runs, by its load.
    load: Option<u64>,
    /// Was a command cut off?
    is_pending: bool,
}

impl Seen {
    fn of(world: &World) -> Seen {
        let active = world.active().filter(|_| world.pinned == Pinned::All);
        let programs = active.and_then(|active| world.slots.get(usize::from(active.slot))?.clone());
        let pending = world.registry.as_ref().and_then(|registry| registry.pending.as_ref());
        let pending = pending.map(|pending| pending.generation.number);
        Seen {
            is_pending: pending.is_some() && pending != world.closed(),
            enabled: world.enabled.clone(),
            generation: active.map_or(0, |active| active.generation),
            load: programs.map(|programs| programs.load),
        }
    }

    fn has_host(&self) -> bool {
        matches!(self.enabled, Some(Scheduler::Host { .. }))
    }
}

/// What a command said.
enum Said {
    /// It did what it was asked to. The generation that runs, if one does.
    Done(Option<u32>),
    /// Nothing was to be done.
    Nothing,
    Failed(Error),
    Killed,
}

struct History {
    kernel: FakeKernel,
    told: Vec<String>,
}

impl History {
    fn step(&mut self, step: Step) {
        match step {
            Step::Command(command, fault) => {
                self.command(command, fault);
            }
            Step::Eject => self.kernel.0.borrow_mut().eject(),
            Step::Foreign if self.kernel.state() == "disabled" => {
                self.kernel.0.borrow_mut().enabled = Some(Scheduler::Foreign);
            }
            Step::ForeignEnds if self.kernel.ops() == "foreign" => {
                let mut world = self.kernel.0.borrow_mut();
                (world.enabled, world.foreign_pinned) = (None, false);
            }
            Step::Foreign | Step::ForeignEnds => {}
        }
    }

    fn command(&mut self, command: Command, fault: Option<(u32, Fault)>) -> Said {
        interrupt::begin();
        let before = Seen::of(&self.kernel.0.borrow());
        self.kernel.0.borrow_mut().fault = fault;
        let said = self.say(command);
        let after = {
            let mut world = self.kernel.0.borrow_mut();
            world.end_command();
            Seen::of(&world)
        };
        let words = match &said {
            Said::Done(generation) => format!("done, generation {generation:?}"),
            Said::Nothing => "nothing to do".to_owned(),
            Said::Failed(error) => format!("exit {:?}: {error}", error.exit()),
            Said::Killed => "killed".to_owned(),
        };
        self.told.push(format!("{command:?} {fault:?}: {words}\n    {before:?}\n    {after:?}"));
        self.check(command, fault.map(|(_, fault)| fault), &before, &said, &after);
        said
    }

    fn say(&self, command: Command) -> Said {
        let kernel = &self.kernel;
        let run = || -> Result<Option<u32>> {
            let swap = |number, options: SwapOptions<'_>| {
                let (_, _, report) =
                    take_over::locked_take_over(kernel, &policy(number), options, |_, _| {})?;
                effect::confirm(kernel, &report)?;
                Ok(Some(report.generation))
            };
            match command {
                Command::Run { policy, replace, minimal } => swap(
                    policy,
                    SwapOptions {
                        only: Some(ExpectedAction::Run),
                        may_reattach: true,
                        replace,
                        minimal_ops: minimal,
                        ..SwapOptions::default()
                    },
                ),
                Command::Swap { policy, may_reattach, no_carry } => swap(
                    policy,
                    SwapOptions {
                        only: Some(ExpectedAction::Swap),
                        may_reattach,
                        no_carry,
                        ..SwapOptions::default()
                    },
                ),
                Command::Rollback { may_reattach } => {
                    let (_, report) =
                        take_over::locked_rollback(kernel, RollbackTarget::Before, may_reattach)?;
                    effect::confirm(kernel, &report)?;
                    Ok(Some(report.generation))
                }
                Command::Recover => {
                    let (_, report) = take_over::locked_recover(kernel, RollbackTarget::Same, None)?;
                    report.as_ref().map_or(Ok(()), |report| effect::confirm(kernel, report))?;
                    Ok(report.map(|report| report.generation))
                }
                Command::Stop => stop::locked_stop(kernel).map(|_| None),
            }
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(None)) if !matches!(command, Command::Stop) => Said::Nothing,
            Ok(Ok(generation)) => Said::Done(generation),
            Ok(Err(error)) => Said::Failed(error),
            Err(payload) if payload.is::<Killed>() => Said::Killed,
            Err(payload) => resume_unwind(payload),
        }
    }

    fn check(&self, command: Command, fault: Option<Fault>, before: &Seen, said: &Said, after: &Seen) {
        let world = self.kernel.0.borrow();
        self.assert(world.wrong.is_empty(), &world.wrong.join("; "));
        let may_detach = match command {
            Command::Swap { may_reattach, .. } | Command::Rollback { may_reattach } => may_reattach,
            Command::Stop | Command::Run { .. } => true,
            Command::Recover => false,
        };
        if before.enabled.is_some() && !may_detach && fault != Some(Fault::Ejects) {
            self.assert(after.enabled == before.enabled, "the scheduler is gone, or another one");
        }
        match said {
            Said::Done(Some(generation)) => {
                self.assert(after.has_host(), "it is done, and the host does not run");
                self.assert(after.generation == *generation, "another generation runs than it said");
                self.assert(after.load.is_some(), "it is done, and no policy runs");
                self.in_order(&world);
            }
            Said::Done(None) => {
                self.assert(!after.has_host(), "it is stopped, and the host runs");
                self.assert(world.pinned == Pinned::Nothing, "it is stopped, and something is pinned");
            }
            Said::Nothing => {
                self.assert(after.has_host(), "there was nothing to recover, and the host does not run");
                self.in_order(&world);
            }
            Said::Failed(error) => self.is_true(error, before, after),
            Said::Killed => {}
        }
    }

    /// Is what an error says of the scheduler that runs true?
    fn is_true(&self, error: &Error, before: &Seen, after: &Seen) {
        match error.exit() {
            Exit::DefaultScheduler => {
                self.assert(!after.has_host(), "it says that the default scheduler runs, and the host does");
            }
            Exit::AfterCommit => {
                self.assert(after.has_host(), "it says that the new policy runs, and the host does not");
                // Without a policy it is on the way back, and says so.
                let moved = after.generation != before.generation || after.load.is_none();
                self.assert(moved, "it says that it is committed, and it is not");
            }
            Exit::NothingRunning => self.assert(!after.has_host(), "it says that nothing runs"),
            _ if before.has_host() => {
                self.assert(after.has_host(), "it says nothing of it, and the host does not run any more");
                self.assert(after.load == before.load, "it says nothing of it, and another policy runs");
            }
            // It attached what an earlier command left detached, and failed afterwards.
            _ if before.is_pending && after.has_host() => {}
            _ => {
                self.assert(!after.has_host(), "it failed, and the host runs that did not");
                self.assert(after.enabled == before.enabled, "it failed, and another scheduler runs");
            }
        }
    }

    /// A host that runs, and of which no command was cut off.
    fn in_order(&self, world: &World) {
        let host = Host::running(&self.kernel).map_err(|e| e.to_string());
        let host = match host {
            Ok(host) => host,
            Err(error) => return self.assert(false, &format!("the host runs, and: {error}")),
        };
        let active = host.data.active();
        self.assert(host.registry.pending.is_none(), "something is pending");
        for slot in 0..4u8 {
            let told = host.registry.slot(slot).map(|info| info.load);
            let is = world.slots[usize::from(slot)].as_ref().map(|programs| programs.load);
            self.assert(told == is, &format!("slot {slot} has load {is:?}, the registry says {told:?}"));
        }
        let last = host.registry.generations.last().map(|g| (g.number, g.slot));
        self.assert(
            last == Some((active.generation, active.slot)),
            "the registry ends with another generation",
        );
        let told: BTreeSet<u64> = host.registry.queues.iter().map(|queue| queue.id).collect();
        let are: BTreeSet<u64> = world.queues.keys().copied().collect();
        self.assert(told == are, &format!("queues {are:x?}, the registry says {told:x?}"));
        let own = world.slots[usize::from(active.slot)].clone().map_or(Vec::new(), |p| p.queues);
        let stranded = world.queues.iter().any(|(queue, tasks)| *tasks > 0 && !own.contains(queue));
        self.assert(!stranded, "tasks wait where the running policy does not look");
        self.assert(
            active.epoch - world.swept_epoch.min(active.epoch) <= MAX_BEHIND,
            "records are forgotten",
        );
        if let Some(Scheduler::Host { terms }) = &world.enabled {
            self.assert(host.registry.terms == *terms, "the host is attached on other terms");
            let asks = host.active_policy().map(|info| info.asks()).unwrap_or_default();
            self.assert(terms.satisfies(&asks), "the terms do not suit the policy that runs");
        }
    }

    /// After all of it a command that nothing disturbs does what it is asked to.
    fn end(&mut self) {
        self.step(Step::ForeignEnds);
        self.command(Command::Recover, None);
        let swap = Command::Swap { policy: 1, may_reattach: true, no_carry: false };
        let run = Command::Run { policy: 1, replace: false, minimal: false };
        let said = match self.command(swap, None) {
            Said::Failed(Error::NothingRunning) => self.command(run, None),
            said => said,
        };
        self.assert(matches!(said, Said::Done(Some(_))), "the last swap");
        let said = self.command(Command::Swap { policy: 2, may_reattach: false, no_carry: false }, None);
        self.assert(matches!(said, Said::Done(Some(_))), "the last swap but for one");
        let said = self.command(Command::Rollback { may_reattach: false }, None);
        self.assert(matches!(said, Said::Done(Some(_))), "the last rollback");
    }

    fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{what}, after\n{}", self.told.join("\n"));
    }
}

fn fault() -> impl Strategy<Value = Option<(u32, Fault)>> {
    let kinds = prop_oneof![
        3 => Just(Fault::Fails),
        3 => Just(Fault::KilledBefore),
        3 => Just(Fault::KilledAfter),
        1 => Just(Fault::Ejects),
        1 => Just(Fault::Signal),
    ];
    // Most commands are done in as many calls.
    prop_oneof![1 => Just(None), 2 => (1u32..40, kinds).prop_map(Some)]
}

fn command() -> impl Strategy<Value = Command> {
    let number = 0..POLICIES;
    prop_oneof![
        3 => (number.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(policy, replace, minimal)| Command::Run { policy, replace, minimal }),
        6 => (number, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(policy, may_reattach, no_carry)| Command::Swap { policy, may_reattach, no_carry }),
        4 => any::<bool>().prop_map(|may_reattach| Command::Rollback { may_reattach }),
        2 => Just(Command::Recover),
        1 => Just(Command::Stop),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (command(), fault()).prop_map(|(command, fault)| Step::Command(command, fault)),
        1 => Just(Step::Eject),
        1 => Just(Step::Foreign),
        1 => Just(Step::ForeignEnds),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_or_is_killed_what_commands_say_is_true(history in prop::collection::vec(step(), 1..8)) {
        let mut all = History { kernel: FakeKernel::default(), told: Vec::new() };
        all.step(Step::Command(Command::Run { policy: 0, replace: false, minimal: false }, None));
        history.into_iter().for_each(|step| all.step(step));
        all.end();
    }
}

//! `scx-upgrade recover --watch`: notices at once when the kernel takes the host off, says why, and brings back the last good
//! policy with its state, or gives up. What is to be done is decided by [`Supervisor`].

mod event;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use anyhow::Context;
use scx_upgrade_engine::Error;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::names;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::RollbackTarget;
use scx_upgrade_engine::host::registry::SlotInfo;
use scx_upgrade_engine::kernel::sysfs;
use scx_upgrade_engine::observe::ejection::Decision;
use scx_upgrade_engine::observe::ejection::Ejection;
use scx_upgrade_engine::observe::ejection::Kind;
use scx_upgrade_engine::observe::ejection::Supervisor;
use scx_upgrade_engine::observe::ejection_trace::Exits;
use scx_upgrade_engine::observe::last_good;
use scx_upgrade_engine::observe::last_good::LastGood;
use scx_upgrade_engine::os::private_dir::PrivateDir;
use scx_upgrade_engine::transition::method::PreloadedHost;
use scx_upgrade_engine::transition::options::ExpectedAction;
use scx_upgrade_engine::transition::options::SwapOptions;
use scx_upgrade_engine::transition::snapshot;
use scx_upgrade_engine::transition::take_over;

use self::event::Event;
use self::event::Notice;
use crate::args::RecoverArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::frontend;
use crate::launch;
use crate::launch::Interruption;
use crate::launch::Place;
use crate::output::Output;

/// How often to look: a file of sysfs and a word of shared memory.
const LOOK: Duration = Duration::from_millis(event::LOOK_MS);
/// How long the kernel may take from `disabling` to its last word on why.
const LAST_WORD: Duration = Duration::from_secs(30);
/// How often to look whether the policy's process is alive, and how long one that ends again is left alone.
const LOOK_AT_PROCESS: Duration = Duration::from_secs(1);
const ATTEND_AGAIN: Duration = Duration::from_secs(60);
/// The default scheduler is left in charge: as [`Error::Ejected`].
const GAVE_UP: Exit = Exit::DefaultScheduler;

/// Watch until a signal ends it, or it gives up.
pub fn supervise(pins: &Pins, args: &RecoverArgs, out: Output) -> Result<(), Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot handle signals")?;
    let mut watch = Watch {
        pins,
        args,
        out,
        interrupted: &interrupted,
        folder: PrivateDir::of_this_machine(),
        supervisor: Supervisor::new(args.limits()),
        exits: Exits::attach(),
        begin: Instant::now(),
        running: None,
        ready: None,
        left_alone: None,
        process: Process { looked: Instant::now(), ended: None, started: None },
        complaint: String::new(),
    };
    if args.boot {
        watch.start_last_good();
    }
    while !watch.interrupted() {
        watch.look()?;
        watch.rest();
    }
    watch.save();
    Ok(())
}

/// A host that runs.
struct Running {
    host: Host,
    /// The kernel's count of attachments: another one is another host, or this one attached again.
    enable_seq: u64,
    generation: u32,
    /// When its generation was committed.
    since: Instant,
    is_good: bool,
    saved: Instant,
}

/// What is known of the policy's own process.
struct Process {
    looked: Instant,
    /// The id of the last that had ended, so as to say it once.
    ended: Option<u32>,
    /// When one was started in the place of another.
    started: Option<Instant>,
}

struct Watch<'a> {
    pins: &'a Pins,
    args: &'a RecoverArgs,
    out: Output,
    interrupted: &'a AtomicBool,
    folder: PrivateDir,
    supervisor: Supervisor,
    /// What the kernel tells by, where it does.
    exits: Exits,
    begin: Instant,
    running: Option<Running>,
    /// The host, loaded ahead: the verifier's work is done when it is needed.
    ready: Option<PreloadedHost>,
    /// After an ejection that a person wanted: the count of attachments then.
    left_alone: Option<u64>,
    process: Process,
    /// What was complained of last, so as to say it once.
    complaint: String,
}

impl Watch<'_> {
    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn say(&self, event: &Event) {
        let _ = self.out.line(event, || format!("{event}\n"));
    }

    /// Until the next look: for a while, or until the kernel tells of an exit. It tells just before its state changes.
    fn rest(&self) {
        self.exits.wait(LOOK);
        if !self.exits.is_told() {
            return;
        }
        let begin = Instant::now();
        while sysfs::state() == "enabled" && begin.elapsed() < LOOK {
            std::thread::sleep(Duration::from_millis(1));
        }
        if sysfs::state() == "enabled" {
            // Another scheduler's exit, such as one below this.
            self.exits.take();
        }
    }

    /// One look, and what follows from it.
    fn look(&mut self) -> Result<(), Failure> {
        let same = self
            .running
            .as_ref()
            .is_some_and(|running| sysfs::state() == "enabled" && sysfs::enable_seq() == running.enable_seq);
        if same {
            self.goes_on();
            self.attend();
            return Ok(());
        }
        match Host::running(self.pins) {
            Ok(host) => self.runs(host),
            // Someone is about to detach and attach again, or was killed when doing so: the lock tells.
            Err(Error::Detached { .. } | Error::HalfReplaced) => self.recover(RollbackTarget::Same, None)?,
            Err(Error::Ejected { .. }) if self.left_alone == Some(sysfs::enable_seq()) => {}
            Err(Error::Ejected { .. }) => self.ejected()?,
            Err(Error::NothingRunning) => {
                // Both hold what was stopped in memory.
                self.running = None;
                self.ready = None;
            }
            // It is being attached, and has no pin yet.
            Err(Error::OtherScheduler { ops, .. }) if ops.starts_with(names::NAME) => {}
            Err(other) => {
                self.running = None;
                self.complain(&other.to_string());
            }
        }
        Ok(())
    }

    /// A host is there that was not, or was attached again.
    fn runs(&mut self, host: Host) {
        let generation = host.data.active().generation;
        let committed = host.registry.generations.last().map_or(0, |g| g.unix_time);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(Duration::from_secs(committed));
        self.complaint.clear();
        self.left_alone = None;
        self.get_ready(&host);
        let by = if self.exits.by_tracepoint() { Notice::Tracepoint } else { Notice::Polling };
        self.say(&Event::Watching { policy: name(&host), generation, by });
        // What was told until now was of an earlier host.
        self.exits.take();
        self.running = Some(Running {
            host,
            enable_seq: sysfs::enable_seq(),
            generation,
            since: Instant::now().checked_sub(before).unwrap_or_else(Instant::now),
            is_good: false,
            saved: Instant::now(),
        });
    }

    /// The host that was seen before runs on.
    fn goes_on(&mut self) {
        let Some(running) = &mut self.running else { return };
        let generation = running.host.data.active().generation;
        if generation != running.generation {
            // The registry is another command's by now.
            let Ok(host) = Host::running(self.pins) else { return };
            *running = Running {
                host,
                enable_seq: running.enable_seq,
                generation,
                since: Instant::now(),
                is_good: false,
                saved: Instant::now(),
            };
        }
        if !running.is_good && running.since.elapsed() >= self.args.good_after {
            running.is_good = true;
            let good = LastGood::of(&running.host);
            let written = good.as_ref().map(|good| good.write(&self.folder));
            if let Some(Err(e)) = written {
                self.complain(&format!("after a boot nobody will know which policy ran well: {e}"));
            }
            self.save();
        }
        let due = |running: &Running| {
            let every = self.args.save_every;
            running.is_good && !every.is_zero() && running.saved.elapsed() >= every
        };
        if self.running.as_ref().is_some_and(due) {
            self.save();
        }
    }

    /// Save what a good policy knows, but for tasks, which a boot ends.
    fn save(&mut self) {
        let Some(running) = self.running.as_mut().filter(|running| running.is_good) else { return };
        running.saved = Instant::now();
        if self.args.save_every.is_zero() {
            return;
        }
        if let Err(e) = snapshot::save(self.pins, &last_good::snapshot(&self.folder), false) {
            self.complain(&format!("what the policy knows is not saved: {e}"));
        }
    }

    /// See that the policy has its process.
    fn attend(&mut self) {
        let Some(running) = self.running.as_mut() else { return };
        if self.process.looked.elapsed() < LOOK_AT_PROCESS {
            return;
        }
        self.process.looked = Instant::now();
        if process(&running.host).is_none_or(|(_, _, alive)| alive) {
            return;
        }
        // By what the registry says now: another command may have started one.
        let Ok(host) = Host::running(self.pins) else { return };
        running.host = host;
        let Some((policy, pid, false)) = process(&running.host) else { return };
        if self.process.ended != Some(pid) {
            self.process.ended = Some(pid);
            self.say(&Event::ProcessEnded { policy: policy.clone(), pid });
        }
        if !self.args.attend || self.process.started.is_some_and(|then| then.elapsed() < ATTEND_AGAIN) {
            return;
        }
        self.process.started = Some(Instant::now());
        match frontend::where_it_ended(self.pins) {
            Ok(Some(pid)) => self.say(&Event::ProcessStarted { policy, pid }),
            Ok(None) => {}
            Err(failure) => {
                self.complain(&format!("no process was started in its place: {}", failure.message))
            }
        }
    }

    fn get_ready(&mut self, host: &Host) {
        let terms = &host.registry.terms;
        if self.ready.as_ref().is_some_and(|ready| ready.is_for(host, terms)) {
            return;
        }
        match PreloadedHost::load(host, terms) {
            Ok(ready) => self.ready = Some(ready),
            Err(e) => {
                self.ready = None;
                log::warn!("a recovery would have to load the host first: {e}");
            }
        }
    }

    /// The kernel took the host off.
    fn ejected(&mut self) -> Result<(), Failure> {
        let noticed = Instant::now();
        let Some((ejection, dump)) = self.last_word()? else { return Ok(()) };
        // One that was committed since the last look has hardly run, however long the one before did.
        let seen = self.running.take().filter(|running| running.generation == ejection.generation);
        let ran = seen.map_or(Duration::ZERO, |running| running.since.elapsed());
        ejection.record(&dump, &self.folder).iter().for_each(|warning| log::warn!("{warning}"));
        self.say(&Event::Ejected { ejection: ejection.clone(), told: self.exits.take() });
        if ejection.kind.is_wanted() && !self.args.always {
            self.left_alone = Some(sysfs::enable_seq());
            self.say(&Event::LeftAlone { kind: ejection.kind });
            return Ok(());
        }
        self.decide(&ejection, ran, noticed)
    }

    /// What the kernel says of why. `None`: somebody attached it again meanwhile, or a signal came.
    fn last_word(&self) -> Result<Option<(Ejection, String)>, Failure> {
        let deadline = Instant::now() + LAST_WORD;
        loop {
            match (sysfs::state().as_str(), Ejection::look(self.pins)?) {
                ("disabled", Some(told)) => return Ok(Some(told)),
                ("enabled", _) => return Ok(None),
                ("disabled", None) if Instant::now() > deadline => {
                    return Err(Failure::new(GAVE_UP, "the host is off, and the kernel does not say why"));
                }
                _ if self.interrupted() => return Ok(None),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn decide(&mut self, ejection: &Ejection, ran: Duration, noticed: Instant) -> Result<(), Failure> {
        match self.supervisor.ejected(self.begin.elapsed(), ejection, ran) {
            Decision::Recover { aim, after } => {
                self.wait(after);
                if self.interrupted() {
                    return Ok(());
                }
                match self.recover(aim, Some(noticed)) {
                    // That counts too.
                    Err(failure) if self.still_off() => {
                        log::error!("{}", failure.message);
                        self.decide(
                            &Ejection { kind: Kind::Error, ..ejection.clone() },
                            Duration::ZERO,
                            noticed,
                        )
                    }
                    other => other,
                }
            }
            Decision::GiveUp => {
                let message = format!(
                    "{} was taken off by the kernel ({}: {}), not for the first time: tasks stay on the kernel's default \
                     scheduler. State is kept. `scx-upgrade swap BINARY`, `rollback` or `recover` attaches again, `stop` \
                     forgets it",
                    ejection.policy, ejection.kind, ejection.reason
                );
                Err(Failure::new(GAVE_UP, message))
            }
        }
    }

    fn still_off(&self) -> bool {
        matches!(Host::running(self.pins), Err(Error::Ejected { .. } | Error::Detached { .. }))
    }

    fn recover(&mut self, aim: RollbackTarget, noticed: Option<Instant>) -> Result<(), Failure> {
        match take_over::recover(self.pins, aim, self.ready.take()) {
            Ok(Some(report)) => {
                let after_ms = noticed.map(|noticed| noticed.elapsed().as_millis() as u64);
                let generation = report.generation;
                self.say(&Event::Recovered { after_ms, report: Box::new(report) });
                frontend::after(self.pins, generation);
                Ok(())
            }
            Ok(None) | Err(Error::NothingRunning) => Ok(()),
            // Someone else's scheduler is no business of this one's.
            Err(other @ Error::OtherScheduler { .. }) => {
                self.complain(&other.to_string());
                Ok(())
            }
            Err(other) => Err(other.into()),
        }
    }

    fn wait(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end && !self.interrupted() {
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// After a boot. Whatever goes wrong, the machine runs on the default scheduler.
    fn start_last_good(&mut self) {
        if !matches!(Host::running(self.pins), Err(Error::NothingRunning)) {
            return;
        }
        let good = match LastGood::read(&self.folder) {
            Ok(Some(good)) => good,
            Ok(None) => return self.complain("nothing is known that ran well before: nothing is started"),
            Err(e) => return self.complain(&format!("what ran well before cannot be read: {e}")),
        };
        let binary = match PolicyBinary::open(&good.binary.path) {
            Ok(binary) => binary,
            Err(failure) => {
                return self.complain(&format!(
                    "{} {} ran well before and cannot be started: {}",
                    good.policy, good.version, failure.message
                ));
            }
        };
        // The one that is open, whatever comes to its path now.
        if binary.identity().sha256 != good.binary.sha256 {
            return self.complain(&format!(
                "{} {} ran well before, but {} is another file by now: nothing is started. `scx-upgrade run {0}` if it is \
                 to be trusted",
                good.policy,
                good.version,
                good.binary.path.display()
            ));
        }
        let snapshot = last_good::snapshot(&self.folder);
        let started = if snapshot.exists() {
            self.start(&binary, &good, Some(snapshot)).or_else(|failure| {
                self.complain(&format!("not with what it knew: {}", failure.message));
                self.start(&binary, &good, None)
            })
        } else {
            self.start(&binary, &good, None)
        };
        match started {
            Ok(event) => self.say(&event),
            Err(failure) => self.complain(&format!(
                "{} {} ran well before and cannot be started: {}",
                good.policy, good.version, failure.message
            )),
        }
    }

    fn start(
        &self,
        binary: &PolicyBinary,
        good: &LastGood,
        snapshot: Option<PathBuf>,
    ) -> Result<Event, Failure> {
        let options = SwapOptions {
            restore: snapshot.as_deref(),
            minimal_ops: good.lean,
            only: Some(ExpectedAction::Run),
            ..SwapOptions::default()
        };
        // A signal ends the supervisor, which has its own way to end.
        let how = (Place::Unit, Interruption::Returns);
        let launched = launch::launch(self.pins, binary, &good.args, how, options, self.out)?;
        Ok(Event::Started { report: Box::new(launched.report) })
    }

    fn complain(&mut self, what: &str) {
        if self.complaint != what {
            log::warn!("{what}");
            self.complaint = what.to_string();
        }
    }
}

/// Name and process of the policy that runs, and whether that is alive.
fn process(host: &Host) -> Option<(String, u32, bool)> {
    let slot = host.registry.slot(host.data.active().slot)?;
    Some((slot.policy.clone(), slot.pid, scx_upgrade_engine::os::identity::is_alive(slot.pid)))
}

fn name(host: &Host) -> String {
    let slot = host.registry.slot(host.data.active().slot);
    slot.map(SlotInfo::title).unwrap_or_default()
}

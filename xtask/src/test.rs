//! `cargo xtask test`: style, host tests, documentation, and the end-to-end suites on each kernel of the matrix.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use lab::{
    cache,
    kernel::{self, Kernel},
    protocol::Ended,
    vm::{BOOTS, EMULATOR, Job, Outcome, VmError},
};

use crate::{
    artifacts::{Artifact, Kind},
    build::{self, Programs},
    cargo,
    lab_run::{self, Machine},
    package, setup,
    stage::stage,
    tally::Tally,
    times::{Part, Times},
};

/// The kernels that the end-to-end suites run on: the newest, the last before the archive's broken ones, and the oldest
/// that still is to work.
const MATRIX: &[&str] = &["7.3+", "7.0", "6.18|6.16"];

/// Suites that have a machine to themselves, and what is special about it.
const SPECIAL: &[(&str, Special)] =
    &[("scx_core", Special::Smt), ("latency", Special::Counted), ("cost", Special::Counted)];

/// Suites that compare times, or that look whether something comes in time. No other machine runs beside theirs.
const TIMED: &[&str] =
    &["bugfix", "demo", "guard", "picture", "recovery", "schedulers", "scx_quota", "sweep", "transcripts"];

/// How many machines run side by side, where nothing in them is timed. One machine has two CPUs, of which the work of a swap
/// keeps one busy. One until whole runs with two have shown that no test is spoilt by it.
const LANES: usize = 1;
/// In how many machines the newest kernel's other suites run: with more than one lane, enough for all lanes to end at about
/// the same time.
const CHUNKS: usize = 1;

/// An instruction takes four nanoseconds there: a slow machine, which is emulated sooner.
const COUNTED_SHIFT: u8 = 2;

/// A suite says a word at the end of each test, and none takes a quarter as long: one that has said nothing for this time hangs.
const SILENCE: Duration = Duration::from_secs(900);

/// Environment variables that make a test longer than it is in each run, handed on to the guest: swaps of a chain and under
/// the guard, kills in each step, seconds of a watch.
const LENGTHS: &[&str] =
    &["SCX_UPGRADE_CHAIN", "SCX_UPGRADE_SWAPS", "SCX_UPGRADE_KILLS", "SCX_UPGRADE_SECONDS"];

/// What a machine can have that others have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    /// Two CPUs a core.
    Smt,
    /// A clock that counts instructions, and one CPU.
    Counted,
}

impl Special {
    fn words(self) -> &'static str {
        match self {
            Special::Smt => " with SMT",
            Special::Counted => " by a clock that counts instructions",
        }
    }
}

/// Options of the verb.
#[derive(Args)]
pub struct Options {
    /// Run the end-to-end suites on this kernel instead of the matrix. May be given several times.
    #[arg(long, value_name = "VERSION|IMAGE")]
    kernel: Vec<String>,
    /// Leave the end-to-end suites out: no virtual machine, no kernel.
    #[arg(long, conflicts_with = "kernel")]
    host_only: bool,
    /// Run the end-to-end suites only: no style, no host tests, no documentation.
    #[arg(long, conflicts_with = "host_only")]
    lab_only: bool,
    /// Run of the end-to-end suites only what the oldest kernel gets.
    #[arg(long, conflicts_with = "host_only")]
    quick: bool,
    /// Run all of the end-to-end suites on each kernel, with all rounds on the newest. Takes hours more.
    #[arg(long, conflicts_with_all = ["host_only", "quick"])]
    thorough: bool,
    #[command(flatten)]
    machine: Machine,
    /// Run only tests whose names contain one of these.
    filter: Vec<String>,
}

/// What has been counted so far. A step that is no test program counts as one failure when it fails.
#[derive(Default)]
struct Score {
    tally: Tally,
    complaints: Vec<String>,
    not_run: Vec<String>,
    times: Times,
    /// What runs beside the steps that are under way.
    beside: Option<String>,
}

impl Score {
    /// Runs a step that has no tests of its own.
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.timed(name, || stage(name, step)) {
            self.fail(&Tally::default(), &format!("{name}: {error:#}"));
        }
    }

    /// Runs something and notes how long it took.
    fn timed<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = step();
        let (took, beside) = (begun.elapsed(), self.beside.clone());
        self.times.0.push(Part { name: name.to_owned(), took, beside, ..Part::default() });
        done
    }

    /// Takes down how a machine did.
    fn add(&mut self, run: MachineRun) {
        self.tally.add(&run.tally);
        if let Err(error) = run.done {
            self.fail(&run.tally, &format!("{}: {error:#}", run.part.name));
        }
        self.times.0.push(run.part);
    }

    /// Takes a failure down. One that shows in no failed test of `tally` (a crash, say) counts as one.
    fn fail(&mut self, tally: &Tally, complaint: &str) {
        eprintln!("test: {complaint}");
        self.tally.failed += u64::from(tally.failed == 0);
        // The list at the end is for finding the place; a console has been shown by then.
        self.complaints.push(complaint.lines().next().unwrap_or_default().to_owned());
    }
}

/// Runs the verb. The last line of standard output is `N passed, N failed`.
///
/// # Errors
/// When packages are missing that cannot be installed; everything else counts as a failure.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages(!options.host_only)?;
    let mut score = Score::default();
    if options.host_only {
        without_the_lab(&mut score, &options.filter);
        let program = build::cli();
        the_package(&mut score, options, program.as_deref().map_err(|e| anyhow::anyhow!("{e:#}")));
    } else {
        with_the_lab(&mut score, options);
    }

    if !options.host_only && !options.thorough && options.filter.is_empty() {
        score.not_run.push(format!("only with --thorough: {}", THOROUGH.join(", ")));
    }
    // At the end, where nobody overlooks it.
    println!("\n{}", score.times);
    score.not_run.iter().for_each(|what| println!("\nNOT RUN: {what}"));
    if !score.complaints.is_empty() {
        println!("\nWhat failed:");
        score.complaints.iter().for_each(|complaint| println!("- {complaint}"));
    }
    println!("\n{}", score.tally);
    Ok(if score.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything but for `--host-only`. The machine whose clock counts instructions keeps one CPU of this computer busy, and
/// nothing that runs beside it changes what it counts: it runs while this computer checks style and runs its own tests.
fn with_the_lab(score: &mut Score, options: &Options) {
    let lab = Lab::prepare(score, options);
    let plans = match &lab {
        Ok(lab) => lab.plans(),
        Err(error) => {
            score.fail(&Tally::default(), &format!("end-to-end suites: {error:#}"));
            Plans::default()
        }
    };
    thread::scope(|scope| {
        // QEMU ends with the thread that started it, and this thread waits for each machine.
        let counted = &plans.counted;
        let counting = scope.spawn(move || counted.iter().map(|plan| plan.run(true)).collect::<Vec<_>>());
        if !options.lab_only {
            score.beside = counted.first().map(|plan| plan.name.clone());
            without_the_lab(score, &options.filter);
            score.beside = None;
        }
        match counting.join() {
            Ok(runs) => runs.into_iter().for_each(|run| score.add(run)),
            Err(_) => score.fail(&Tally::default(), "the thread of the counting machine panicked"),
        }
    });
    if let Ok(lab) = &lab {
        // The host's tests may have linked the same programs with features that only tests need.
        if !options.lab_only {
            score.step("build, again", || build::all().map(drop));
        }
        the_package(score, options, lab.programs.path("scx-upgrade"));
    }
    plans.alone.iter().for_each(|plan| score.add(plan.run(false)));
    in_lanes(&plans.beside).into_iter().for_each(|run| score.add(run));
}

/// Runs machines, [`LANES`] at a time. A lane that is free takes the next.
fn in_lanes(plans: &[Plan<'_>]) -> Vec<MachineRun> {
    let lanes = LANES.min(plans.len());
    let (queue, done) = (Mutex::new(plans.iter().collect::<VecDeque<_>>()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(plan) = next else { break };
                    let run = plan.run(lanes > 1);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(run);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Style, host tests, documentation. For release all of it, as what runs in the lab: each crate is built once.
fn without_the_lab(score: &mut Score, filter: &[String]) {
    score.step("format", || cargo::run(&["fmt", "--all", "--check"], &[]));
    score.step("lint", || {
        cargo::run(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
    });
    // The crate e2e runs in the lab. All other packages in one go: cargo builds a crate anew for another choice of packages,
    // where that asks for other features of it.
    cargo_tests(score, "host tests", &["--workspace", "--exclude", "e2e"], filter);
    score.step("documentation", || {
        cargo::run(&["doc", "--release", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
    });
}

/// The Debian package, where one can be made.
fn the_package(score: &mut Score, options: &Options, program: Result<&Path>) {
    if options.lab_only || !options.filter.is_empty() {
        return;
    }
    match program.and_then(|program| Ok((program, package::needs()?))) {
        Ok((program, _)) => score.step("package", || package::check(program)),
        Err(e) => score.not_run.push(format!("the Debian package: {e:#}")),
    }
}

fn cargo_tests(score: &mut Score, name: &str, packages: &[&str], filter: &[String]) {
    let mut arguments = [&["test", "--release", "--no-fail-fast"], packages].concat();
    arguments.push("--");
    arguments.extend(filter.iter().map(String::as_str));
    let mut tally = Tally::default();
    let done = score.timed(name, || stage(name, || cargo::run_tests(&arguments, &mut tally)));
    score.tally.add(&tally);
    if let Err(error) = done {
        score.fail(&tally, &format!("{name}: {error:#}"));
    }
}

/// What the end-to-end suites need.
struct Lab<'a> {
    options: &'a Options,
    kernels: Vec<Kernel>,
    programs: Programs,
    suites: Vec<Artifact>,
}

/// The machines to run suites in.
#[derive(Default)]
struct Plans<'a> {
    /// Their clock counts instructions.
    counted: Vec<Plan<'a>>,
    /// Nothing may run beside these.
    alone: Vec<Plan<'a>>,
    /// These may run beside each other.
    beside: Vec<Plan<'a>>,
}

impl<'a> Lab<'a> {
    /// Gets kernels and builds what runs in the lab.
    fn prepare(score: &mut Score, options: &'a Options) -> Result<Self> {
        let wanted: Vec<&str> = if options.kernel.is_empty() {
            MATRIX.to_vec()
        } else {
            options.kernel.iter().map(String::as_str).collect()
        };
        let (kernels, missing) = score.timed("kernels", || {
            stage("kernels", || {
                let (kernels, missing) = kernel::obtain_series(&cache::folder()?, &wanted);
                if kernels.is_empty() {
                    let why: Vec<_> =
                        missing.iter().map(|(wanted, error)| format!("{wanted}: {error:#}")).collect();
                    bail!("no kernel to test on. {}", why.join("; "));
                }
                let have: Vec<_> = kernels.iter().map(|kernel| kernel.version.as_str()).collect();
                eprintln!("test: the suites run on {}", have.join(", "));
                Ok((kernels, missing))
            })
        })?;
        for (wanted, error) in missing {
            let what = format!("kernel {wanted}: {error:#}");
            if options.kernel.is_empty() {
                // The archive drops old kernels; that is no fault of the code under test, but nothing to keep quiet about.
                score.not_run.push(what);
            } else {
                score.fail(&Tally::default(), &what);
            }
        }
        let programs = score.timed("build", build::all)?;
        let suites = score.timed("build of the suites", || stage("build of the suites", suites))?;
        Ok(Self { options, kernels, programs, suites })
    }

    fn plans(&self) -> Plans<'_> {
        let mut plans = Plans::default();
        for (n, kernel) in self.kernels.iter().enumerate() {
            let share = match n {
                _ if self.options.quick => Share::Oldest,
                0 => Share::All,
                _ if self.options.thorough => Share::Quarter,
                1 => Share::Older,
                _ => Share::Oldest,
            };
            self.plan_kernel(kernel, share, &mut plans);
        }
        // The machine for SMT has one short suite: it fills the gap at the end.
        plans.beside.sort_by_key(|plan| plan.kind.is_some());
        plans
    }

    fn plan_kernel<'b>(&'b self, kernel: &Kernel, share: Share, plans: &mut Plans<'b>) {
        let filters = filters(self.options, share);
        let wanted = |suite: &&Artifact| is_asked_for(suite, self.options) && !is_empty(suite, &filters);
        let suites: Vec<_> = self.suites.iter().filter(wanted).collect();
        let plan = |kind: Option<Special>, what: &str, suites: Vec<&'b Artifact>| {
            let words = kind.map_or("", Special::words);
            let name = format!("end-to-end suites on {}{words}{what}", kernel.version);
            Plan { lab: self, kernel: kernel.clone(), share, kind, name, suites }
        };
        let one_machine = !self.options.filter.is_empty() || share != Share::All;
        for group in deal(&suites, |suite| suite.name.as_str(), one_machine) {
            // Latencies are of our schedulers and of the kernel's default one, instructions of our code, and both take long by
            // that clock: once is enough.
            if group.kind == Some(Special::Counted) && share != Share::All {
                continue;
            }
            let to = match (group.kind, group.timed) {
                (Some(Special::Counted), _) => &mut plans.counted,
                (_, true) => &mut plans.alone,
                _ => &mut plans.beside,
            };
            to.push(plan(group.kind, &group.what, group.suites));
        }
    }
}

/// Suites that run in one machine.
struct Group<'a, T> {
    kind: Option<Special>,
    /// Whether anything in it is timed.
    timed: bool,
    /// What tells the machine from others of the same kind, in words.
    what: String,
    suites: Vec<&'a T>,
}

/// Deals suites out to machines, none empty. `one_machine`: those that need nothing special come together.
fn deal<'a, T>(suites: &[&'a T], name: impl Fn(&T) -> &str, one_machine: bool) -> Vec<Group<'a, T>> {
    let special = |suite: &T| SPECIAL.iter().find(|(own, _)| *own == name(suite)).map(|(_, kind)| *kind);
    let is_timed = |suite: &T| TIMED.contains(&name(suite));
    let of = |wanted: &dyn Fn(&T) -> bool| {
        suites.iter().copied().filter(|suite| wanted(suite)).collect::<Vec<_>>()
    };
    let mut groups = Vec::new();
    for kind in [Special::Smt, Special::Counted] {
        let suites = of(&|suite| special(suite) == Some(kind));
        groups.push(Group { kind: Some(kind), timed: false, what: String::new(), suites });
    }
    let plain = of(&|suite| special(suite).is_none());
    if one_machine {
        let timed = plain.iter().any(|suite| is_timed(suite));
        groups.push(Group { kind: None, timed, what: String::new(), suites: plain });
    } else {
        let (timed, others): (Vec<_>, Vec<_>) = plain.into_iter().partition(|suite| is_timed(suite));
        groups.push(Group {
            kind: None,
            timed: true,
            what: ", those that are timed".to_owned(),
            suites: timed,
        });
        for chunk in 0..CHUNKS {
            let suites = others.iter().copied().skip(chunk).step_by(CHUNKS).collect();
            let what = format!(", others, {} of {CHUNKS}", chunk + 1);
            groups.push(Group { kind: None, timed: false, what, suites });
        }
    }
    groups.retain(|group| !group.suites.is_empty());
    groups
}

/// Builds the test programs of the crate `e2e`.
///
/// # Errors
/// When cargo fails.
pub fn suites() -> Result<Vec<Artifact>> {
    let mut built = cargo::executables(&["test", "--release", "--package", "e2e", "--no-run"])?;
    built.retain(|artifact| artifact.kind == Kind::IntegrationTest);
    if built.is_empty() {
        bail!("the crate e2e has no tests");
    }
    Ok(built)
}

/// How much of the suites a kernel gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    /// All tests.
    All,
    /// All tests, with a quarter of the rounds of those that do the same over and over: what depends on luck is looked for
    /// on the newest kernel.
    Quarter,
    /// As few rounds, of the tests in [`ALL_OLD`] and [`OLDER`].
    Older,
    /// As few rounds, of the tests in [`ALL_OLD`] and [`OLDEST`].
    Oldest,
}

impl Share {
    /// Parts of the names of the tests that it is; none where it is all.
    fn names(self) -> Vec<&'static str> {
        match self {
            Share::All | Share::Quarter => Vec::new(),
            Share::Older => [ALL_OLD, OLDER].concat(),
            Share::Oldest => [ALL_OLD, OLDEST].concat(),
        }
    }
}

/// What is tested on every kernel but the newest besides: what depends on kernel features that are younger than the oldest.
const OLDER: &[&str] = &[
    "a_snapshot_carries_every_scope_over_a_stop",
    "an_ejected_policy_makes_way_for_the_good_one_with_its_state",
    "records_are_converted_and_brought_back_as_the_oracle_says",
    "scx_quota_gives_what_cpu_max_says",
];

/// What is tested on the oldest kernel: that every program of the host and of each kind of policy verifies, and what the
/// host does otherwise there. What user space does is not repeated: the kernel between shows it.
const ALL_OLD: &[&str] = &[
    "a_policy_with_conversions_attaches_directly",
    "an_ordinary_user_is_told_so",
    "directly_attached_it_is_a_plain_scheduler",
    "no_write_of_any_task_is_lost_or_repeated_over_many_swaps",
    "queues_of_a_policy_attached_directly",
    "rows_are_given_again_and_a_fork_that_fails_has_none",
    "schedulers_attach_directly",
    "tasks_on_a_queue_that_the_successor_does_not_name_are_handed_over",
    "the_verifier_has_little_to_follow",
];

/// What is tested besides on the newest and the oldest kernel, and not between: that each variant of the host verifies.
const OLDEST: &[&str] = &["a_lean_host_does_without_what_nobody_in_it_uses"];

/// Tests of minutes, for which CI has no time. What commands do when they are killed is tried ten thousand times against a kernel
/// in memory (`engine/src/transition/histories.rs`), and once in a machine (`killed`). Only these look at a reattach during which
/// another scheduler is attached, and at the demo. An ordinary run leaves them out and says so at its end. `--thorough` runs
/// them, and so does a run that names them.
const THOROUGH: &[&str] = &[
    "a_killed_conversion_is_finished_or_undone_there_and_back",
    "a_reattach_that_is_killed_or_robbed_while_nothing_is_attached_keeps_the_records",
    "a_rollback_can_be_killed_at_each_step",
    "a_rollback_killed_before_its_commit_gives_the_queues_back",
    "a_swap_can_be_killed_at_each_step",
    "guard_lets_a_swap_be_that_changes_nothing",
    "queues_of_a_swap_that_is_killed",
    "the_demo_holds_and_reports",
];

/// Suites that run only where one of their tests is asked for by name. Of hotplug's runs one does not end now and then, for what
/// docs/troubleshooting.md says, and a machine that hangs tells nothing else either.
const BY_NAME: &[&str] = &["hotplug"];

fn is_asked_for(suite: &Artifact, options: &Options) -> bool {
    let by_name = BY_NAME.contains(&suite.name.as_str());
    let filters: Vec<_> = options.filter.iter().map(String::as_str).collect();
    !by_name || (!filters.is_empty() && !is_empty(suite, &filters))
}

/// What a test program is told of the tests that are wanted: parts of their names, and which to leave out.
fn filters(options: &Options, share: Share) -> Vec<&str> {
    if !options.filter.is_empty() {
        return options.filter.iter().map(String::as_str).collect();
    }
    let left_out = THOROUGH.iter().filter(|_| share == Share::All && !options.thorough);
    share.names().into_iter().chain(left_out.flat_map(|name| ["--skip", name])).collect()
}

/// Has the suite no test that is wanted? Listing runs none.
fn is_empty(suite: &Artifact, filters: &[&str]) -> bool {
    let listed = Command::new(&suite.path).arg("--list").args(filters).output();
    listed.is_ok_and(|run| run.status.success() && !String::from_utf8_lossy(&run.stdout).contains(": test"))
}

/// A machine, and the suites to run in it.
struct Plan<'a> {
    lab: &'a Lab<'a>,
    kernel: Kernel,
    share: Share,
    kind: Option<Special>,
    name: String,
    suites: Vec<&'a Artifact>,
}

/// How a machine did.
struct MachineRun {
    part: Part,
    tally: Tally,
    done: Result<()>,
}

impl Plan<'_> {
    /// Boots the machine, runs the suites, and boots again where the emulator broke it. `beside`: something else runs meanwhile,
    /// so each line that is shown names the machine.
    fn run(&self, beside: bool) -> MachineRun {
        let (mut tally, begun) = (Tally::default(), Instant::now());
        let done = stage(&self.name, || {
            let (mut suites, mut boots) = (&self.suites[..], 1);
            loop {
                let so_far = tally.programs;
                let error = match self.on_fresh_machine(suites, beside, begun, &mut tally) {
                    Err(error) if boots < BOOTS && is_the_emulators(&error) => error,
                    done => return done,
                };
                // Suites do not depend on each other: it goes on with the one that had no result yet.
                suites = &suites[tally.programs - so_far..];
                boots += 1;
                eprintln!("\ntest: {error:#}\ntest: {EMULATOR}: going on in a fresh machine");
            }
        });
        let suites = self.suites.iter().map(|suite| suite.name.clone()).zip(tally.suites.clone()).collect();
        let part = Part {
            name: self.name.clone(),
            took: begun.elapsed(),
            beside: beside.then(|| "other work".to_owned()),
            suites,
            tests: tally.tests.clone(),
        };
        MachineRun { part, tally, done }
    }

    /// Boots a machine for these suites and adds their results to `tally`.
    fn on_fresh_machine(
        &self,
        suites: &[&Artifact],
        beside: bool,
        begun: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        let Lab { options, programs, .. } = self.lab;
        let so_far = tally.programs;
        let mut job = job(programs, suites, &filters(options, self.share))?;
        if !self.has_all_rounds() {
            job.env.push(("SCX_UPGRADE_ROUNDS".to_owned(), "quarter".to_owned()));
        }
        let lengths = LENGTHS.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let lengths: Vec<_> = lengths.collect();
        let as_long_as_usual = lengths.is_empty();
        job.env.extend(lengths);
        let mut machine = options.machine.clone();
        if self.kind == Some(Special::Smt) {
            machine.smt = 2;
        }
        let mut vm = lab_run::machine(self.kernel.clone(), programs.init()?, &machine);
        if self.kind == Some(Special::Counted) {
            (vm.icount, vm.cpus) = (Some(COUNTED_SHIFT), 1);
        }
        vm.silence = as_long_as_usual.then_some(SILENCE);
        let shown = if beside { lab_run::Shown::Named(self.short_name()) } else { lab_run::Shown::AsItIs };
        let outcome = lab_run::boot(&vm, &job, shown, |bytes| tally.feed_at(bytes, begun.elapsed()))?;
        let mut complaints = judge(&outcome, tally.programs - so_far, suites);
        complaints.extend(stalls(&outcome)?);
        if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("; ")) }
    }

    /// Does a test that repeats something have all its rounds? It does in a run that names it, and with `--thorough`. An
    /// ordinary run has a quarter: CI allows 90 minutes for a cold build and all machines on two cores.
    fn has_all_rounds(&self) -> bool {
        let options = self.lab.options;
        self.share == Share::All && (options.thorough || !options.filter.is_empty())
    }

    /// The machine's name before each line of its output.
    fn short_name(&self) -> String {
        let version = self.kernel.version.split('+').next().unwrap_or_default();
        match self.kind {
            Some(Special::Smt) => format!("{version} smt"),
            Some(Special::Counted) => format!("{version} counted"),
            None => version.to_owned(),
        }
    }
}

fn is_the_emulators(error: &anyhow::Error) -> bool {
    error.downcast_ref::<VmError>().is_some_and(VmError::is_the_emulators)
}

/// What runs `suites` in the guest, with all programs at hand.
///
/// # Errors
/// When a program is no file that can be brought.
pub fn job(programs: &Programs, suites: &[&Artifact], filters: &[&str]) -> Result<Job> {
    // A backtrace names the place in the code, not only the assertion.
    let mut job = Job { env: vec![("RUST_BACKTRACE".to_owned(), "1".to_owned())], ..Job::default() };
    for program in programs.paths() {
        job.bring(program)?;
    }
    for suite in suites {
        // Not in /bin: a suite may well have the name of the program that it tests.
        let guest = format!("/tests/{}", suite.name);
        let mut command = vec![guest.clone(), "--test-threads=1".to_owned()];
        command.extend(filters.iter().map(|filter| (*filter).to_owned()));
        job.files.push((suite.path.clone(), guest));
        job.commands.push(command);
    }
    Ok(job)
}

/// The watchdog's ejections. No test means to cause one, and the next command would mend it before anyone looks.
fn stalls(outcome: &Outcome) -> Result<Vec<String>> {
    let console = fs::read(&outcome.console).context("cannot read the console")?;
    let console = String::from_utf8_lossy(&console);
    let stalls = console.lines().filter(|line| line.contains("runnable task stall"));
    Ok(stalls.map(|line| format!("the kernel ejected a scheduler: {line}")).collect())
}

/// What is wrong with a run whose guest did end in good health, and in which so many suites gave a result.
fn judge(outcome: &Outcome, results: usize, suites: &[&Artifact]) -> Vec<String> {
    let mut complaints: Vec<String> = suites
        .iter()
        .zip(&outcome.ended)
        .filter_map(|(suite, ended)| match ended {
            Ended::Exited(0) => None,
            Ended::Exited(status) => Some(format!("{} failed (status {status})", suite.name)),
            Ended::Signalled(signal) => Some(format!("{} was killed by signal {signal}", suite.name)),
            Ended::NotStarted(why) => Some(why.clone()),
        })
        .collect();
    if complaints.is_empty() && results != suites.len() {
        complaints.push(format!("{results} of {} suites gave a result", suites.len()));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SUITES: [&str; 9] =
        ["chain", "churn", "cost", "demo", "guard", "killed", "latency", "task_table", "scx_core"];

    fn dealt(one_machine: bool) -> Vec<(Option<Special>, bool, Vec<&'static str>)> {
        let suites: Vec<_> = SUITES.iter().collect();
        deal(&suites, |name| name, one_machine)
            .into_iter()
            .map(|group| (group.kind, group.timed, group.suites.into_iter().copied().collect()))
            .collect()
    }

    #[test]
    fn each_suite_is_in_one_machine_and_timed_ones_are_alone() {
        let (smt, counted) = (Some(Special::Smt), Some(Special::Counted));
        let mut expected = vec![
            (smt, false, vec!["scx_core"]),
            (counted, false, vec!["cost", "latency"]),
            (None, true, vec!["demo", "guard"]),
        ];
        let others = ["chain", "churn", "killed", "task_table"];
        expected
            .extend((0..CHUNKS).map(|n| (None, false, others.into_iter().skip(n).step_by(CHUNKS).collect())));
        assert_eq!(dealt(false), expected);
    }

    #[test]
    fn a_few_tests_take_one_machine() {
        let plain = vec!["chain", "churn", "demo", "guard", "killed", "task_table"];
        assert_eq!(dealt(true)[2..], [(None, true, plain)]);
        let suites = ["churn", "killed"];
        let suites: Vec<_> = suites.iter().collect();
        let groups = deal(&suites, |name| name, true);
        assert!(groups.len() == 1 && !groups[0].timed);
    }

    /// A suite that is renamed must not lose what it needs.
    #[test]
    fn suites_that_are_named_exist() {
        let suites = cargo::root().join("tests/e2e/tests");
        for name in THOROUGH {
            let found = fs::read_dir(&suites).unwrap().any(|suite| {
                fs::read_to_string(suite.unwrap().path())
                    .is_ok_and(|text| text.contains(&format!("fn {name}(")))
            });
            assert!(found, "there is no test {name}");
        }
        let named = TIMED.iter().chain(SPECIAL.iter().map(|(name, _)| name)).chain(BY_NAME);
        for name in named {
            assert!(suites.join(format!("{name}.rs")).is_file(), "there is no suite {name}");
        }
    }

    /// Crates and their features, as cargo builds them for these packages.
    fn features(arguments: &[&str]) -> BTreeSet<String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let format = ["tree", "--offline", "--locked", "--prefix", "none", "--no-dedupe", "-f", "{p} {f}"];
        let run =
            Command::new(cargo).args(format).args(arguments).current_dir(cargo::root()).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Lint and host tests, documentation, programs and suites are built with the same features of each crate: what one step has
    /// built, the others take.
    #[test]
    fn all_steps_build_a_crate_with_the_same_features() {
        let with_tests = features(&["--workspace", "--edges", "normal,build,dev"]);
        for arguments in [
            &["--workspace", "--edges", "normal,build"][..],
            &["--workspace", "--exclude", "e2e", "--edges", "normal,build,dev"],
            &["--workspace", "--exclude", "xtask", "--edges", "normal,build"],
            &["--package", "e2e", "--edges", "normal,build,dev"],
        ] {
            let others: Vec<_> = features(arguments).difference(&with_tests).cloned().collect();
            assert!(
                others.is_empty(),
                "cargo builds these crates anew for {arguments:?}: {others:?}. Name the features in tests/e2e/Cargo.toml"
            );
        }
    }
}

//! `cargo xtask test`: style, host tests, documentation, and the end-to-end suites on each kernel of the matrix.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
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
};

/// The kernels that the end-to-end suites run on: the newest, the last before the archive's broken ones, and the oldest
/// that still is to work.
const MATRIX: &[&str] = &["7.3+", "7.0", "6.18|6.16"];

/// Suites that have a machine to themselves, and what is special about it.
const SPECIAL: &[(&str, Special)] =
    &[("scx_core", Special::Smt), ("latency", Special::Counted), ("cost", Special::Counted)];

/// An instruction takes four nanoseconds there: a slow machine, which is emulated sooner.
const COUNTED_SHIFT: u8 = 2;

/// A suite says a word at the end of each test, and none takes a quarter as long: one that has said nothing for this time hangs.
const SILENCE: Duration = Duration::from_secs(900);

/// Environment variables that make a test longer than it is in each run, handed on to the guest: swaps of a chain and under
/// the guard, kills in each step, seconds of a watch.
const LENGTHS: &[&str] =
    &["SCX_UPGRADE_CHAIN", "SCX_UPGRADE_SWAPS", "SCX_UPGRADE_KILLS", "SCX_UPGRADE_SECONDS"];

/// What a machine can have that others have not.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    /// Run all of the end-to-end suites on each kernel, with fewer rounds on older ones. Takes an hour more.
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
}

impl Score {
    /// Runs a step that has no tests of its own.
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        if let Err(error) = stage(name, step) {
            self.fail(&Tally::default(), &format!("{name}: {error:#}"));
        }
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
    if !options.lab_only {
        without_the_lab(&mut score, &options.filter);
    }
    if options.host_only {
        let program = build::cli();
        the_package(&mut score, options, program.as_deref().map_err(|e| anyhow::anyhow!("{e:#}")));
    }
    if !options.host_only
        && let Err(error) = guest_tests(&mut score, options)
    {
        score.fail(&Tally::default(), &format!("end-to-end suites: {error:#}"));
    }

    // At the end, where nobody overlooks it.
    score.not_run.iter().for_each(|what| println!("\nNOT RUN: {what}"));
    if !score.complaints.is_empty() {
        println!("\nWhat failed:");
        score.complaints.iter().for_each(|complaint| println!("- {complaint}"));
    }
    println!("\n{}", score.tally);
    Ok(if score.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Style, host tests, documentation. For release all of it, as what runs in the lab: each crate is built once.
fn without_the_lab(score: &mut Score, filter: &[String]) {
    score.step("format", || cargo::run(&["fmt", "--all", "--check"], &[]));
    score.step("lint", || {
        cargo::run(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
    });
    host_tests(score, filter);
    score.step("documentation", || {
        cargo::run(&["doc", "--release", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
    });
    cargo_tests(score, "documentation, the book", &["--package", "book"], filter);
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

fn host_tests(score: &mut Score, filter: &[String]) {
    let all_others = ["--workspace", "--exclude", "e2e", "--exclude", "book"];
    cargo_tests(score, "host tests", &all_others, filter);
}

fn cargo_tests(score: &mut Score, name: &str, packages: &[&str], filter: &[String]) {
    let mut arguments = [&["test", "--release", "--no-fail-fast"], packages].concat();
    arguments.push("--");
    arguments.extend(filter.iter().map(String::as_str));
    let mut tally = Tally::default();
    let done = stage(name, || cargo::run_tests(&arguments, &mut tally));
    score.tally.add(&tally);
    if let Err(error) = done {
        score.fail(&tally, &format!("{name}: {error:#}"));
    }
}

fn guest_tests(score: &mut Score, options: &Options) -> Result<()> {
    let wanted: Vec<&str> = if options.kernel.is_empty() {
        MATRIX.to_vec()
    } else {
        options.kernel.iter().map(String::as_str).collect()
    };
    let (kernels, missing) = stage("kernels", || {
        let (kernels, missing) = kernel::obtain_series(&cache::folder()?, &wanted);
        if kernels.is_empty() {
            let why: Vec<_> = missing.iter().map(|(wanted, error)| format!("{wanted}: {error:#}")).collect();
            bail!("no kernel to test on. {}", why.join("; "));
        }
        let have: Vec<_> = kernels.iter().map(|kernel| kernel.version.as_str()).collect();
        eprintln!("test: the suites run on {}", have.join(", "));
        Ok((kernels, missing))
    })?;
    let programs = build::all()?;
    the_package(score, options, programs.path("scx-upgrade"));
    let suites = stage("build of the suites", suites)?;
    for (n, kernel) in kernels.into_iter().enumerate() {
        let share = match n {
            _ if options.quick => Share::Oldest,
            0 => Share::All,
            _ if options.thorough => Share::Quarter,
            1 => Share::Older,
            _ => Share::Oldest,
        };
        on_kernel(score, options, kernel, share, &programs, &suites);
    }
    for (wanted, error) in missing {
        if options.kernel.is_empty() {
            // The archive drops old kernels; that is no fault of the code under test, but nothing to keep quiet about.
            println!("\nNOT RUN on kernel {wanted}: {error:#}");
        } else {
            score.fail(&Tally::default(), &format!("kernel {wanted}: {error:#}"));
        }
    }
    Ok(())
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
    /// Everything.
    All,
    /// A quarter of the rounds, of a test that does the same over and over: what depends on luck is looked for on the
    /// newest kernel.
    Quarter,
    /// As few rounds, of the tests in [`OLDEST`] and [`OLDER`].
    Older,
    /// As few rounds, of the tests in [`OLDEST`].
    Oldest,
}

impl Share {
    /// Parts of the names of the tests that it is; none where it is all.
    fn names(self) -> Vec<&'static str> {
        match self {
            Share::All | Share::Quarter => Vec::new(),
            Share::Older => [OLDEST, OLDER].concat(),
            Share::Oldest => OLDEST.to_vec(),
        }
    }
}

/// What is tested on every kernel but the newest besides: what user space has to bring in order after a kill, by way of
/// what each kernel has, and what depends on kernel features that are younger than the oldest.
const OLDER: &[&str] = &[
    "a_killed_swap_is_finished_or_undone_by_the_next_command",
    "a_snapshot_carries_every_scope_over_a_stop",
    "an_ejected_policy_makes_way_for_the_good_one_with_its_state",
    "guard_finds_one_that_makes_tasks_wait",
    "records_are_converted_and_brought_back_as_the_oracle_says",
    "schedulers_from_the_template_run_and_swap",
    "scx_quota_gives_what_cpu_max_says",
];

/// What is tested on the oldest kernel: that every program of the host and of each kind of policy verifies, and what the
/// host does otherwise there. What user space does is not repeated: the kernel between shows it.
const OLDEST: &[&str] = &[
    "a_lean_host_does_without_what_nobody_in_it_uses",
    "a_policy_with_conversions_attaches_directly",
    "an_ordinary_user_is_told_so",
    "another_ops_flag_takes_a_reattach_and_keeps_every_record",
    "directly_attached_it_is_a_plain_scheduler",
    "no_write_of_any_task_is_lost_or_repeated_over_many_swaps",
    "queues_of_a_policy_attached_directly",
    "rows_are_given_again_and_a_fork_that_fails_has_none",
    "schedulers_attach_directly",
    "tasks_on_a_queue_that_the_successor_does_not_name_are_handed_over",
    "the_verifier_has_little_to_follow",
];

fn on_kernel(
    score: &mut Score,
    options: &Options,
    kernel: Kernel,
    share: Share,
    programs: &Programs,
    suites: &[Artifact],
) {
    let suites: Vec<_> = suites.iter().filter(|suite| is_asked_for(suite, options)).collect();
    let special =
        |suite: &Artifact| SPECIAL.iter().find(|(name, _)| *name == suite.name).map(|(_, special)| *special);
    let filters = filters(options, share);
    for kind in [Some(Special::Smt), Some(Special::Counted), None] {
        let of_kind: Vec<_> = suites.iter().copied().filter(|suite| special(suite) == kind).collect();
        // Latencies are of our schedulers and of the kernel's default one, instructions of our code, and both take long by
        // that clock: once is enough.
        if kind == Some(Special::Counted) && share != Share::All {
            continue;
        }
        // A machine for nothing takes its time too, where only some tests are wanted.
        if of_kind.iter().any(|suite| !is_empty(suite, &filters)) {
            let words = kind.map_or("", Special::words);
            let name = format!("end-to-end suites on {}{words}", kernel.version);
            on_machine(score, &How { options, share, kind, name: &name }, kernel.clone(), programs, &of_kind);
        }
    }
}

/// Suites that run only where one of their tests is asked for by name. Of hotplug's runs one does not end now and then, for what
/// docs/troubleshooting.md says, and a machine that hangs tells nothing else either.
const BY_NAME: &[&str] = &["hotplug"];

fn is_asked_for(suite: &Artifact, options: &Options) -> bool {
    let by_name = BY_NAME.contains(&suite.name.as_str());
    let filters: Vec<_> = options.filter.iter().map(String::as_str).collect();
    !by_name || (!filters.is_empty() && !is_empty(suite, &filters))
}

/// Parts of the names of the tests that are wanted; none where all are.
fn filters(options: &Options, share: Share) -> Vec<&str> {
    if options.filter.is_empty() {
        return share.names();
    }
    options.filter.iter().map(String::as_str).collect()
}

/// Has the suite no test that is wanted? Listing runs none.
fn is_empty(suite: &Artifact, filters: &[&str]) -> bool {
    let listed = Command::new(&suite.path).arg("--list").args(filters).output();
    listed.is_ok_and(|run| run.status.success() && !String::from_utf8_lossy(&run.stdout).contains(": test"))
}

/// How suites are run.
struct How<'a> {
    options: &'a Options,
    share: Share,
    kind: Option<Special>,
    name: &'a str,
}

fn on_machine(score: &mut Score, how: &How, kernel: Kernel, programs: &Programs, suites: &[&Artifact]) {
    let name = how.name;
    let mut tally = Tally::default();
    let done = stage(name, || {
        let (mut suites, mut boots) = (suites, 1);
        loop {
            let so_far = tally.programs;
            let error = match on_fresh_machine(how, kernel.clone(), programs, suites, &mut tally) {
                Err(error) if boots < BOOTS && is_the_emulators(&error) => error,
                done => return done,
            };
            // Suites do not depend on each other: it goes on with the one that had no result yet.
            suites = &suites[tally.programs - so_far..];
            boots += 1;
            eprintln!("\ntest: {error:#}\ntest: {EMULATOR}: going on in a fresh machine");
        }
    });
    score.tally.add(&tally);
    if let Err(error) = done {
        score.fail(&tally, &format!("{name}: {error:#}"));
    }
}

fn is_the_emulators(error: &anyhow::Error) -> bool {
    error.downcast_ref::<VmError>().is_some_and(VmError::is_the_emulators)
}

/// Boots a machine for these suites and adds their results to `tally`.
fn on_fresh_machine(
    how: &How,
    kernel: Kernel,
    programs: &Programs,
    suites: &[&Artifact],
    tally: &mut Tally,
) -> Result<()> {
    let so_far = tally.programs;
    let mut job = job(programs, suites, &filters(how.options, how.share))?;
    if how.share != Share::All {
        job.env.push(("SCX_UPGRADE_ROUNDS".to_owned(), "quarter".to_owned()));
    }
    let lengths = LENGTHS.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let lengths: Vec<_> = lengths.collect();
    let as_long_as_usual = lengths.is_empty();
    job.env.extend(lengths);
    let mut machine = how.options.machine.clone();
    if how.kind == Some(Special::Smt) {
        machine.smt = 2;
    }
    let mut vm = lab_run::machine(kernel, programs.init()?, &machine);
    vm.icount = (how.kind == Some(Special::Counted)).then_some(COUNTED_SHIFT);
    vm.silence = as_long_as_usual.then_some(SILENCE);
    let outcome = lab_run::boot(&vm, &job, |bytes| tally.feed(bytes))?;
    let mut complaints = judge(&outcome, tally.programs - so_far, suites);
    complaints.extend(stalls(&outcome)?);
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("; ")) }
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

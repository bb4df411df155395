//! The parts, each in a machine of its own: what one leaves behind is not in the way of the next.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lab::{
    cache,
    kernel::{self, Kernel},
    vm::Job,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Options, Part,
    published::SCHEDULERS,
    result::{self, Bench, ByThreads, Instructions, Machine, PolicyInstructions, Published},
};
use crate::{
    build::{self, Programs},
    lab_run, setup,
    stage::stage,
};

/// Where a program leaves its report in the guest.
const REPORT: &str = "report.json";
/// Policies whose cost per context switch is counted: the smallest, and a weighted one with state per task.
const COUNTED: [&str; 2] = ["scx_mini", "scx_fair_v1"];
/// Memory where instructions are counted: two threads need little.
const COUNTED_MEMORY: &str = "2G";
/// Delays by a clock that counts: threads of the load, seconds of each window, and memory. That clock is slow.
const DELAYS: (u32, u32, &str) = (1_000, 4, "4G");
/// Emulated CPUs there.
const DELAYS_CPUS: u32 = 2;
/// An instruction takes two to the power of this in nanoseconds there.
const DELAYS_SHIFT: u8 = 2;

/// What every report says of its machine, and what this part of it says.
#[derive(Deserialize)]
struct Report<T> {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    part: T,
}

/// What `pingpong` reports: clock ticks per round trip, which is two context switches.
#[derive(Deserialize)]
struct Pingpong {
    default_ticks: f64,
    policies: Vec<Ticks>,
}

#[derive(Deserialize)]
struct Ticks {
    policy: String,
    direct_ticks: f64,
    hosted_ticks: f64,
    lean_ticks: f64,
}

/// The machine that a part runs in.
struct How<'a> {
    cpus: u32,
    memory: &'a str,
    /// See [`lab::vm::Vm::icount`].
    icount: Option<u8>,
    append: &'a str,
}

/// What the parts share.
struct Lab<'a> {
    options: &'a Options,
    kernel: Kernel,
    programs: Programs,
}

/// Measures the parts that are asked for.
///
/// # Errors
/// When the lab fails, a scheduler cannot be built, or a program in the guest leaves no report.
pub fn measure(options: &Options) -> Result<Bench> {
    setup::packages(true)?;
    let cache = cache::folder()?;
    let kernel = stage("kernel", || kernel::obtain(&cache, options.kernel.as_deref()))?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let schedulers = if wanted(Part::Published) {
        SCHEDULERS.iter().map(|scheduler| scheduler.obtain(&cache)).collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let lab = Lab { options, kernel, programs: build::all()? };
    let mut threads = options.threads.clone();
    threads.sort_unstable();
    threads.dedup();

    let (mut machine, mut by_threads, mut instructions, mut published) = (None, Vec::new(), None, Vec::new());
    let mut counted = None;
    if wanted(Part::Threads) {
        for n in &threads {
            let run = lab.threads(*n)?;
            machine = Some(run.machine);
            by_threads.push(run.part);
        }
    }
    if wanted(Part::Published) {
        let ends = [threads.first(), threads.last().filter(|_| threads.len() > 1)];
        for n in ends.into_iter().flatten() {
            let mut run = lab.published(*n, &schedulers)?;
            let way = &mut run.part.loader;
            (way.from, way.to) = (SCHEDULERS[0].title(), SCHEDULERS[1].title());
            machine.get_or_insert(run.machine);
            published.push(run.part);
        }
    }
    if wanted(Part::Instructions) {
        let run = lab.instructions()?;
        machine.get_or_insert(run.machine);
        instructions = Some(run.part);
    }
    if wanted(Part::Delays) {
        let run = lab.delays()?;
        machine.get_or_insert(run.machine);
        counted = Some(run.part);
    }
    let machine = machine.context("nothing was measured")?;
    let command = command(options);
    Ok(Bench { command, machine, window_s: options.window, by_threads, instructions, published, counted })
}

impl Lab<'_> {
    fn threads(&self, threads: u32) -> Result<Report<ByThreads>> {
        let name = format!("demo, {threads} threads");
        let mut arguments = self.under_load(threads);
        arguments.extend(["--rounds".to_owned(), self.options.rounds.to_string()]);
        self.run(&name, "demo", &arguments, &[], &self.by_time())
    }

    /// Delays of one round by a clock that counts: nothing else changes them, so once is enough.
    fn delays(&self) -> Result<Report<ByThreads>> {
        let (threads, window, memory) = DELAYS;
        let [threads, window] = [threads, window].map(|number| number.to_string());
        let arguments = ["--threads", &threads, "--window", &window, "--rounds", "1", "--attempts", "1"];
        let how = How {
            cpus: DELAYS_CPUS,
            memory,
            icount: Some(DELAYS_SHIFT),
            // Where the kernel and programs lie changes what is executed.
            append: "nokaslr norandmaps",
        };
        self.run("delays, counted", "demo", &arguments.map(str::to_owned), &[], &how)
    }

    fn published(&self, threads: u32, schedulers: &[PathBuf]) -> Result<Report<Published>> {
        let name = format!("published schedulers, {threads} threads");
        let mut arguments = self.under_load(threads);
        arguments.push("--provide-config".to_owned());
        self.run(&name, "switch", &arguments, schedulers, &self.by_time())
    }

    fn instructions(&self) -> Result<Report<Instructions>> {
        let policies = COUNTED.iter().flat_map(|policy| ["--policy".to_owned(), format!("/bin/{policy}")]);
        let arguments: Vec<_> = policies.collect();
        let how = How { cpus: 1, memory: COUNTED_MEMORY, icount: Some(0), append: "" };
        let run: Report<Pingpong> = self.run("instructions", "pingpong", &arguments, &[], &how)?;
        let one = |ticks: Ticks| PolicyInstructions {
            policy: ticks.policy,
            direct: ticks.direct_ticks / 2.0,
            hosted: ticks.hosted_ticks / 2.0,
            lean: Some(ticks.lean_ticks / 2.0),
        };
        let policies = run.part.policies.into_iter().map(one).collect();
        let part = Instructions { default: run.part.default_ticks / 2.0, policies };
        Ok(Report { machine: run.machine, part })
    }

    /// As the options say, by the computer's clock.
    fn by_time(&self) -> How<'_> {
        How { cpus: self.options.cpus, memory: &self.options.memory, icount: None, append: "" }
    }

    fn under_load(&self, threads: u32) -> Vec<String> {
        let window = self.options.window.to_string();
        ["--threads", &threads.to_string(), "--window", &window].map(str::to_owned).into()
    }

    /// Boots, runs one program with all others at hand, and takes its report. One that fails but leaves a report has
    /// said in it what is wrong. The report is kept among the results.
    fn run<T: DeserializeOwned>(
        &self,
        name: &str,
        program: &str,
        arguments: &[String],
        with: &[PathBuf],
        how: &How<'_>,
    ) -> Result<T> {
        let inside = format!("/out/{REPORT}");
        let arguments = arguments.iter().map(String::as_str).chain(["--report", &inside]);
        let mut job = Job::program(self.programs.path(program)?, arguments)?;
        for other in self.programs.paths().chain(with.iter().map(PathBuf::as_path)) {
            job.bring(other)?;
        }
        let machine = lab_run::Machine {
            cpus: how.cpus,
            memory: how.memory.to_owned(),
            timeout: self.options.timeout,
            smt: 1,
        };
        let mut vm = lab_run::machine(self.kernel.clone(), self.programs.init()?, &machine);
        vm.icount = how.icount;
        how.append.clone_into(&mut vm.append);
        let outcome = stage(name, || Ok(lab_run::boot(&vm, &job, lab_run::Shown::AsItIs, |_| ())?))?;
        let report = outcome.files.join(REPORT);
        ensure!(report.is_file(), "{program} failed (status {}) and left no report", outcome.status);
        keep(&report, &self.options.out, name)?;
        result::read(&report)
    }
}

/// Copies a whole report to the results: the figures in the tables are not all that is in it.
fn keep(report: &Path, folder: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    lab_run::copy_file(report, &folder.join(format!("{}.json", name.replace(", ", "-").replace(' ', "-"))))
}

/// The command as it can be typed again, with what is not as it is by default.
fn command(options: &Options) -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    if options.threads != super::THREADS {
        let threads: Vec<_> = options.threads.iter().map(u32::to_string).collect();
        words.push(format!("--threads {}", threads.join(",")));
    }
    if options.window != super::WINDOW {
        words.push(format!("--window {}", options.window));
    }
    if options.cpus != super::CPUS {
        words.push(format!("--cpus {}", options.cpus));
    }
    if options.rounds != super::ROUNDS {
        words.push(format!("--rounds {}", options.rounds));
    }
    words.extend(options.kernel.iter().map(|kernel| format!("--kernel {kernel}")));
    words.join(" ")
}

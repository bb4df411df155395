//! What was measured. The types take what they need from the reports of the programs in the guest, whose names they
//! share, and pass over the rest.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// All of it. A part that was not measured is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bench {
    /// The command that measured it.
    pub command: String,
    /// Where. Instructions are counted on one CPU, whatever this says.
    pub machine: Machine,
    /// Seconds that each window lasted at least.
    pub window_s: u32,
    /// Swap and rollback beside detach and attach, for each number of threads.
    pub by_threads: Vec<ByThreads>,
    /// Instructions per context switch.
    pub instructions: Option<Instructions>,
    /// Published schedulers beside policies, for each number of threads.
    pub published: Vec<Published>,
    /// Delays by a clock that counts instructions; not in results from before these were measured.
    #[serde(default)]
    pub counted: Option<ByThreads>,
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// CPUs.
    pub cpus: usize,
    /// Whether they are emulated in software.
    pub emulated: bool,
}

/// What the demo reports, with one number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ByThreads {
    /// Threads of the load.
    pub threads: u32,
    /// The swap's one store.
    pub commit_ns: u64,
    /// Its walk over all tasks.
    pub sweep_ns: u64,
    /// All of the swap, with load and verifier.
    pub swap_total_ns: u64,
    /// The rollback's one store.
    pub rollback_commit_ns: u64,
    /// All of the rollback.
    pub rollback_total_ns: u64,
    /// The kernel's own way: detach,
    pub detach_ns: u64,
    /// and attach.
    pub attach_ns: u64,
    /// The same with load and verifier, as an operator has it; not in results from before this was measured.
    #[serde(default)]
    pub reattach_total_ns: Option<u64>,
    /// Wake-up delay with nothing going on.
    pub baseline: Window,
    /// With the swap.
    pub swap: Window,
    /// With the rollback.
    pub rollback: Window,
    /// With detach and attach.
    pub detach_attach: Window,
    /// Who was seen in the fair class during the swap,
    pub swap_watch: Watch,
    /// during the rollback,
    pub rollback_watch: Watch,
    /// and during detach and attach.
    pub detach_attach_watch: Watch,
    /// Tasks whose state is as it must be.
    pub verification: Verifications,
    /// What is wrong, in words.
    pub failures: Vec<String>,
}

impl ByThreads {
    /// How long detach and attach took together, ns.
    pub fn reattach_ns(&self) -> u64 {
        self.detach_ns + self.attach_ns
    }
}

/// Wake-up delays in a window, microseconds. Of several windows: medians.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// How many.
    pub samples: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many windows it is of; 0 where only one is measured.
    #[serde(default)]
    pub windows: u64,
    /// The least and the largest 99.9th percentile of them.
    #[serde(default)]
    pub p999_spread_us: Spread,
    /// The same of the longest.
    #[serde(default)]
    pub max_spread_us: Spread,
    /// Windows that were measured again, because the machine stood still.
    #[serde(default)]
    pub measured_again: u64,
    /// Windows of these in which the machine stood still, in every attempt.
    #[serde(default)]
    pub stood_still: u64,
    /// The longest that a control thread was late.
    #[serde(default)]
    pub control_max_us: f64,
}

/// Least and largest of several.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

/// What the watch of the fair class saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Watch {
    /// The most tasks in it at a time.
    pub fair_max: u64,
}

/// The demo's comparisons of records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verifications {
    /// After the swap.
    pub swap: Verification,
    /// After the rollback.
    pub rollback: Verification,
}

/// One of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// Live tasks.
    pub live: u64,
    /// Those whose record is as it must be.
    pub verified: u64,
}

/// Instructions per context switch, with the wake-up and the system calls that belong to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instructions {
    /// Under the kernel's default scheduler.
    pub default: f64,
    /// Under policies.
    pub policies: Vec<PolicyInstructions>,
}

/// Under one policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyInstructions {
    /// Its name.
    pub policy: String,
    /// Attached directly.
    pub direct: f64,
    /// In the host.
    pub hosted: f64,
    /// In a lean host; not in results from before there was one.
    #[serde(default)]
    pub lean: Option<f64>,
}

impl PolicyInstructions {
    /// What a host in which it takes so many adds, in percent.
    pub fn added_percent(&self, hosted: f64) -> f64 {
        (hosted / self.direct - 1.0) * 100.0
    }
}

/// From one scheduler to another in both ways, with one number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Published {
    /// Threads of the load.
    pub threads: u32,
    /// As scx_loader does it.
    pub loader: Way,
    /// With `scx-upgrade swap`.
    pub swap: Way,
}

/// One of the ways.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// The scheduler before.
    pub from: String,
    /// And after.
    pub to: String,
    /// Wake-up delay with nothing going on.
    pub baseline: Window,
    /// And with the switch.
    pub window: Window,
    /// From its begin until the new one runs.
    pub total_ns: u64,
    /// Of it, until the old one's process had ended.
    pub stop_ns: u64,
    /// What was seen meanwhile.
    pub seen: Seen,
}

/// What was seen during a switch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// How long the kernel had no scheduler.
    pub gap_ns: u64,
    /// The most tasks in the fair class at a time.
    pub fair_max: u64,
    /// How many schedulers the kernel attached.
    pub attached: u64,
}

impl Bench {
    /// What is not as it must be. Long delays are not among it.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for run in self.by_threads.iter().chain(&self.counted) {
            failures.extend(run.failures.iter().map(|failure| format!("{} threads: {failure}", run.threads)));
        }
        for run in &self.published {
            let Seen { gap_ns, fair_max, attached } = run.swap.seen;
            if (gap_ns, fair_max, attached) != (0, 0, 0) {
                failures.push(format!(
                    "{} threads: the swap to {} left tasks without a scheduler: for {gap_ns} ns, {fair_max} in the fair \
                     class, {attached} times attached",
                    run.threads, run.swap.to
                ));
            }
        }
        failures
    }
}

/// Reads what [`write()`] wrote, or a report from the guest.
///
/// # Errors
/// When there is no such file, or something is missing in it.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not as it should be", file.display()))
}

/// Writes it to a file.
///
/// # Errors
/// When that cannot be written.
pub fn write(bench: &Bench, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(bench)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// A small one, for tests of what is made of it.
#[cfg(test)]
pub fn sample() -> Bench {
    let window = |scale: f64| Window {
        samples: 20_000,
        p50_us: 60.0 * scale,
        p99_us: 1_000.0 * scale,
        p999_us: 2_000.0 * scale,
        max_us: 4_000.0 * scale,
        ..Window::default()
    };
    let run = |threads: u32, grows: u64| ByThreads {
        threads,
        commit_ns: if grows == 1 { 330 } else { 701 },
        sweep_ns: 5_000_000 * grows,
        swap_total_ns: 900_000_000,
        rollback_commit_ns: 400,
        rollback_total_ns: 15_000_000,
        detach_ns: 50_000_000 * grows,
        attach_ns: 150_000_000 * grows,
        reattach_total_ns: None,
        baseline: window(1.0),
        swap: window(2.0),
        rollback: window(1.5),
        detach_attach: window(10.0),
        swap_watch: Watch { fair_max: 0 },
        rollback_watch: Watch { fair_max: 0 },
        detach_attach_watch: Watch { fair_max: 80 * grows },
        verification: Verifications {
            swap: Verification { live: 110, verified: 110 },
            rollback: Verification { live: 109, verified: 109 },
        },
        failures: Vec::new(),
    };
    let way = |from: &str, to: &str, gap_ns, scale| Way {
        from: from.to_owned(),
        to: to.to_owned(),
        baseline: window(2.5),
        window: window(scale),
        total_ns: 2_500_000_000,
        stop_ns: gap_ns / 2,
        seen: Seen { gap_ns, fair_max: gap_ns / 20_000_000, attached: u64::from(gap_ns > 0) },
    };
    let published = |threads| Published {
        threads,
        loader: way("scx_cosmos 1.1.7", "scx_flash 1.1.4", 1_500_000_000, 20.0),
        swap: way("scx_mini", "scx_lat", 0, 3.0),
    };
    let policy = |policy: &str, direct: f64| PolicyInstructions {
        policy: policy.to_owned(),
        direct,
        hosted: direct * 1.05,
        lean: Some(direct * 1.01),
    };
    Bench {
        command: "cargo xtask bench --threads 100,2000".to_owned(),
        machine: Machine { kernel: "7.3.4".to_owned(), cpus: 2, emulated: true },
        window_s: 20,
        by_threads: vec![run(100, 1), run(2_000, 7)],
        instructions: Some(Instructions {
            default: 13_545.5,
            policies: vec![policy("scx_mini", 8_000.0), policy("scx_fair_v1", 8_400.0)],
        }),
        published: vec![published(100), published(2_000)],
        counted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_with_a_gap_is_a_failure() {
        let mut bench = sample();
        assert_eq!(bench.failures(), Vec::<String>::new());
        bench.published[1].swap.seen.gap_ns = 2_000_000;
        bench.by_threads[0].failures.push("nothing was verified".to_owned());
        let failures = bench.failures();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("100 threads: nothing") && failures[1].contains("for 2000000 ns"));
    }

    /// What is written can be read, and reports say more than what is taken from them.
    #[test]
    fn results_are_read_back() {
        let mut value = serde_json::to_value(sample()).unwrap();
        value["by_threads"][0]["run_report"] = "more".into();
        let back: Bench = serde_json::from_value(value).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&sample()).unwrap());
    }
}

//! Probation: the new policy under the guard's eyes, and the way back when it is bad.

use std::time::Duration;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::lock::Probation as Mark;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::RollbackTarget;
use scx_upgrade_engine::observe::guard::Guard;
use scx_upgrade_engine::observe::guard::Limits;
use scx_upgrade_engine::observe::guard::Verdict;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::os::realtime::Children;
use scx_upgrade_engine::os::realtime::RealtimeGuard;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::take_over;

use crate::failure::Failure;
use crate::frontend;
use crate::output::Output;

/// What an operator asks for.
#[derive(Debug, clap::Args)]
pub struct ProbationArgs {
    /// Watch the new policy for so long, such as 30s or 5m, and roll back when it is bad
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub probation: Option<Duration>,

    /// For so long watch what runs before, to know what is usual
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "probation", value_parser = humantime::parse_duration)]
    pub baseline: Duration,

    /// So many times the usual wake-up delay is bad
    #[arg(long, value_name = "TIMES", default_value_t = Limits::default().delay_factor, requires = "probation")]
    pub max_delay: f64,

    /// A task that waits for a CPU for so long is bad
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "probation", value_parser = humantime::parse_duration)]
    pub max_wait: Duration,
}

impl ProbationArgs {
    fn limits(&self) -> Limits {
        let usual = Limits::default();
        // A baseline of few windows would make a false alarm likely: rather shorter windows.
        let window = usual.window.min(self.baseline / usual.baseline).max(Duration::from_millis(10));
        let baseline = (self.baseline.as_nanos() / window.as_nanos()).max(1);
        Limits {
            window,
            baseline: u32::try_from(baseline).unwrap_or(u32::MAX),
            delay_factor: self.max_delay,
            longest_wait: self.max_wait,
            ..usual
        }
    }
}

/// A probation that has been asked for, with its baseline.
#[derive(Debug)]
pub struct Probation {
    guard: Guard,
    length: Duration,
    /// The guard watches also where the new policy forgets it.
    _urgent: RealtimeGuard,
    /// For as long as this lives the old policy's process stands by.
    _mark: Mark,
}

impl Probation {
    /// Watch what runs, if a probation is asked for. Takes as long as the baseline.
    pub fn prepare(pins: &Pins, args: &ProbationArgs) -> Result<Option<Probation>, Failure> {
        let Some(length) = args.probation else { return Ok(None) };
        let host = Host::running(pins)?;
        log::info!("watching what runs for {}", humantime::format_duration(args.baseline));
        let urgent = RealtimeGuard::begin(Children::No);
        urgent.warning().iter().for_each(|warning| log::warn!("{warning}"));
        Ok(Some(Probation {
            guard: Guard::with_baseline(&host, args.limits())?,
            length,
            _urgent: urgent,
            _mark: pins.begin_probation()?,
        }))
    }

    /// Watch the new policy, and take it back if it is bad.
    pub fn pass(
        mut self,
        pins: &Pins,
        done: &Report,
        may_reattach: bool,
        out: Output,
    ) -> Result<(), Failure> {
        if !out.json {
            out.report(done);
        }
        // The new policy runs already, whatever goes wrong here.
        let watched = Host::running(pins).and_then(|host| {
            let verdict = self.guard.probation(&host, done.generation, self.length)?;
            // The last of it, right before it is told.
            if verdict == Verdict::Good {
                effect::confirm(pins, done)?;
            }
            Ok((host, verdict))
        });
        let (host, verdict) = watched.map_err(|error| unwatched(done, error, out))?;
        let why = match &verdict {
            Verdict::Good => {
                let over = format!("{} of probation: good\n", humantime::format_duration(self.length));
                out.show(&document(done, &verdict), |text| text.push_str(&over));
                return Ok(());
            }
            Verdict::Superseded => {
                let over = "probation ends: another policy has been put in charge meanwhile\n";
                out.show(&document(done, &verdict), |text| text.push_str(over));
                return Ok(());
            }
            Verdict::Ejected => {
                let reason = host.data.exit_reason().unwrap_or_else(|| "it does not say why".to_owned());
                format!("the kernel took it off: {reason}")
            }
            Verdict::Bad(breach) => breach.to_string(),
        };
        let back =
            take_over::rollback(pins, RollbackTarget::Before, may_reattach || verdict == Verdict::Ejected)
                .map_err(|e| {
                    let failure = Failure::from(e);
                    // What ran before does not run: the bad one does, if any.
                    let exit_code = match verdict {
                        Verdict::Ejected => Exit::DefaultScheduler.code(),
                        _ if failure.exit_code == Exit::DefaultScheduler.code() => failure.exit_code,
                        _ => Exit::AfterCommit.code(),
                    };
                    let message =
                        format!("{} is bad ({why}) and cannot be rolled back: {}", done.to, failure.message);
                    out.show_failed(&document(done, &verdict), |_| {}, Failure::with_code(exit_code, message))
                })?;
        // It stood by; unless it had ended before.
        frontend::after(pins, back.generation);
        let runs = format!("{} is running as generation {}", back.to, back.generation);
        let message = format!("{} was bad and is rolled back; {runs}\n  {why}", done.to);
        let failure = Failure::new(Exit::RolledBack, message);
        let failure = match effect::confirm(pins, &back) {
            Ok(()) => failure,
            Err(error) => Failure::from(error),
        };
        Err(out.show_failed(&document(done, &verdict), |_| {}, failure))
    }
}

/// The new policy runs, and its probation could not be watched to the end.
fn unwatched(done: &Report, error: Error, out: Output) -> Failure {
    let failure = match error.exit() {
        Exit::DefaultScheduler | Exit::NothingRunning => Failure::from(error),
        _ => Failure::new(
            Exit::AfterCommit,
            format!(
                "{} runs as generation {}, and its probation cannot be watched: {error}",
                done.to, done.generation
            ),
        ),
    };
    out.show_failed(done, |_| {}, failure)
}

/// The report of the swap, with how its probation ended.
fn document(done: &Report, verdict: &Verdict) -> serde_json::Value {
    let mut document = serde_json::json!(done);
    document["probation"] = serde_json::json!(verdict);
    document
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        probation: ProbationArgs,
    }

    #[test]
    fn a_short_baseline_has_as_many_windows() {
        let of = |line: &str| Line::parse_from(line.split(' ')).probation.limits();
        assert_eq!(of("x --probation 30s"), Limits::default());
        let short = of("x --probation 5s --baseline 2s --max-delay 5");
        assert_eq!((short.window, short.baseline), (Duration::from_millis(50), 40));
        assert!((short.delay_factor - 5.0).abs() < f64::EPSILON);
        assert_eq!(of("x --probation 5s --baseline 1m").baseline, 240);
    }
}

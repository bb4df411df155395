//! Put a policy's binary in charge: ask it for its settings, load and commit it, start its frontend.

use scx_upgrade_engine::Error;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::describe::describe;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::transition::frontend;
use scx_upgrade_engine::transition::frontend::Launch;
use scx_upgrade_engine::transition::interrupt;
use scx_upgrade_engine::transition::options::SwapOptions;
use scx_upgrade_engine::transition::take_over;

use anyhow::Context;

use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::Output;

/// A policy runs.
#[derive(Debug)]
pub struct Launched {
    /// What was done.
    pub report: Report,
    /// The signal that came meanwhile, too late to keep the command from its commit.
    pub interrupted: Option<&'static str>,
    /// The host, still with the real-time class that the commit took, until the report is shown.
    pub host: Host,
    /// The policy.
    pub policy: Policy,
}

/// Puts the policy in `binary` in charge, with these arguments. A signal that comes before the commit ends this process.
/// `unit`: start the frontend as a unit of its own, where systemd runs; none: start none.
pub fn launch(
    pins: &Pins,
    binary: &PolicyBinary,
    args: &[String],
    unit: Option<bool>,
    options: SwapOptions<'_>,
    out: Output,
) -> Result<Launched, Failure> {
    // Before anything is started: is this a policy, and one for this host?
    binary.policy()?.schema()?;

    let (identity, only, given) = (binary.identity().clone(), options.only, args.to_vec());
    let interrupted = move |signal: &'static str| {
        take_over::note_failure(only, Some(&identity), &given, &Error::Interrupted);
        let failure = Failure::from(Error::Interrupted);
        let failure = Failure { message: format!("{signal}: {}", failure.message), ..failure };
        // Nothing is left to be done: the kernel frees what was loaded, and drops the lock.
        std::process::exit(failure.report(out.json))
    };
    let interrupts = Interrupts::catch(interrupted).context("cannot handle signals")?;
    let policy = policy(binary, args)?;
    let policy = if unit.is_some() { policy } else { policy.in_foreground() };
    let program = binary.program();
    if unit.is_some() {
        frontend::check(&binary.identity().path)?;
    }
    let launch = unit.map(|unit| Launch { program: &program, path: &binary.identity().path, args, unit });
    let taken = take_over::take_over(pins, &policy, SwapOptions { frontend: launch, ..options });
    interrupt::finished();
    let interrupted = interrupts.caught();
    match taken {
        Ok((host, _, mut report)) => {
            report.warnings.extend(interrupted.map(|signal| format!("{signal} came after the commit")));
            Ok(Launched { report, interrupted, host, policy })
        }
        Err(error) => {
            let by = interrupted.filter(|_| matches!(error, Error::Interrupted));
            let failure = Failure::of(&error);
            let message =
                by.map_or(failure.message.clone(), |signal| format!("{signal}: {}", failure.message));
            Err(Failure { message, ..failure })
        }
    }
}

/// The policy in a binary, with the settings that these arguments mean.
pub fn policy(binary: &PolicyBinary, args: &[String]) -> Result<Policy, Failure> {
    let identity = binary.identity();
    let description = describe(&binary.program(), &identity.path, args)?;
    Ok(binary.policy()?.described(&description, identity.clone(), args)?)
}

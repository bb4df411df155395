//! Put a policy's binary in charge: ask it for its settings, load and commit it, start its frontend.

use scx_upgrade_engine::Error;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::describe::describe;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::transition::frontend;
use scx_upgrade_engine::transition::frontend::Launch;
use scx_upgrade_engine::transition::frontend::Waiting;
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
    /// The process that is the policy's frontend, or becomes it.
    pub frontend: Waiting,
}

/// Where the policy's frontend runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a process of its own, as a unit where systemd runs.
    Unit,
    /// In a process of its own.
    Process,
    /// In this one.
    Here,
}

/// What a signal does that comes before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// It ends this process, at once.
    Ends,
    /// The launch fails with [`Error::Interrupted`].
    Returns,
}

impl Place {
    /// As `--no-unit` says.
    pub fn unless(no_unit: bool) -> Place {
        if no_unit { Place::Process } else { Place::Unit }
    }
}

/// Puts the policy in `binary` in charge, with these arguments.
pub fn launch(
    pins: &Pins,
    binary: &PolicyBinary,
    args: &[String],
    (place, interruption): (Place, Interruption),
    options: SwapOptions<'_>,
    out: Output,
) -> Result<Launched, Failure> {
    // Before anything is started: is this a policy, and one for this host?
    binary.policy()?.schema()?;

    let (identity, only, given) = (binary.identity().clone(), options.only, args.to_vec());
    let interrupted = move |signal: &'static str| {
        if interruption == Interruption::Returns {
            return;
        }
        take_over::note_failure(only, Some(&identity), &given, &Error::Interrupted);
        let failure = Failure::from(Error::Interrupted);
        let failure = Failure { message: format!("{signal}: {}", failure.message), ..failure };
        // Nothing is left to be done: the kernel frees what was loaded, and drops the lock.
        std::process::exit(failure.report(out.json))
    };
    let interrupts = Interrupts::catch(interrupted).context("cannot handle signals")?;
    let policy = policy(binary, args)?;
    let program = binary.program();
    let path = &binary.identity().path;
    let frontend = match place {
        Place::Here => Waiting::of_this_process()?,
        Place::Unit | Place::Process => {
            Waiting::spawn(Launch { program: &program, path, args, unit: place == Place::Unit })?
        }
    };
    let policy = policy.with_frontend(frontend.pid());
    let taken = take_over::take_over(pins, &policy, SwapOptions { frontend: Some(&frontend), ..options });
    interrupt::finished();
    let interrupted = interrupts.caught();
    match taken {
        Ok((host, _, mut report)) => {
            report.warnings.extend(interrupted.map(|signal| format!("{signal} came after the commit")));
            Ok(Launched { report, interrupted, host, frontend })
        }
        Err(error) => {
            if let Some(log) = error.log()
                && let Err(e) = frontend::add_to_log(path, log)
            {
                log::warn!("{e}");
            }
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

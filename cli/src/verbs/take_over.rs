//! `scx-upgrade take-over`: what a policy's binary executes that a person starts by hand. It swaps the policy in, or starts it
//! where nothing runs, and then becomes the policy's frontend, in the foreground.

use std::path::Path;
use std::time::Duration;

use scx_upgrade_engine::Error;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::os::logger::print_line;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::frontend;
use scx_upgrade_engine::transition::frontend::Launch;
use scx_upgrade_engine::transition::options::SwapOptions;

use crate::args::TakeOverArgs;
use crate::binary::PolicyBinary;
use crate::failure::Failure;
use crate::launch;
use crate::launch::Interruption;
use crate::launch::Launched;
use crate::launch::Place;
use crate::output::Output;

pub fn take_over(pins: &Pins, args: &TakeOverArgs, out: Output) -> Result<(), Failure> {
    let binary = PolicyBinary::open(&args.binary)?;
    let options = SwapOptions {
        may_reattach: args.reattach.allow_reattach,
        restore: args.restore.as_deref(),
        replace: args.replace,
        minimal_ops: args.minimal_ops,
        no_carry: args.no_carry,
        ..SwapOptions::default()
    };
    let pins = &pins.clone().patient(Duration::from_secs(args.timeout));
    let how = (Place::Here, Interruption::Ends);
    let Launched { report, host, frontend, .. } =
        launch::launch(pins, &binary, &args.args, how, options, out)?;
    effect::confirm(pins, &report)?;
    // With it goes the real-time class, which must not outlive the exec.
    drop(host);
    print_line(format_args!("{}: generation {} is running", report.to, report.generation));
    report.warnings.iter().for_each(|warning| print_line(format_args!("warning: {warning}")));
    let error = frontend.become_frontend(launch_of(&binary, &binary.program(), args));
    let message =
        format!("{} runs as generation {}, without a frontend: {error}", report.to, report.generation);
    Err(Failure::new(Exit::AfterCommit, message))
}

/// Attaches the policy by itself, without the host. It is detached when the frontend ends.
pub fn direct(args: &TakeOverArgs) -> Result<(), Failure> {
    let binary = PolicyBinary::open(&args.binary)?;
    let policy = launch::policy(&binary, &args.args)?;
    let error = frontend::run_direct(&policy, launch_of(&binary, &binary.program(), args))?;
    Err(Failure::from(Error::NoFrontend { why: error.to_string() }))
}

fn launch_of<'a>(binary: &'a PolicyBinary, program: &'a Path, args: &'a TakeOverArgs) -> Launch<'a> {
    Launch { program, path: &binary.identity().path, args: &args.args, unit: false }
}

//! `scx-upgrade completions`: what a shell completes.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::Failure;
use crate::output;

pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "scx-upgrade", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(())
}

//! `scx-upgrade completions`: what a shell completes.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::Output;

pub fn completions(shell: Shell, out: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "scx-upgrade", &mut script);
    let script = String::from_utf8_lossy(&script);
    out.show(&serde_json::json!({ "script": script }), |text| text.push_str(&script));
    Ok(())
}

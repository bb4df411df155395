//! Headings and durations of the steps of a long command.

use std::time::Instant;

use anyhow::Result;

/// Runs one step under a heading on standard error, and says how long it took and whether it failed; why it did is the
/// caller's to say.
///
/// # Errors
/// The step's own.
pub fn stage<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n==> {name}");
    let started = Instant::now();
    let done = step();
    let seconds = started.elapsed().as_secs_f64();
    match &done {
        Ok(_) => eprintln!("==> {name}: done in {seconds:.1} s"),
        Err(_) => eprintln!("==> {name}: FAILED after {seconds:.1} s"),
    }
    done
}

//! Where the SDK's words go that are for a person: warnings, and what it does besides, on stderr. A policy's process has no
//! other logger; one that has is left with it.

use std::fmt::Display;
use std::io;
use std::io::Write;

use log::Level;
use log::LevelFilter;
use log::Log;
use log::Metadata;
use log::Record;

/// The environment variable by which `scx-upgrade` passes on how much is to be said: a [`LevelFilter`] in words.
pub const LEVEL: &str = "SCX_UPGRADE_LOG";
/// The crates that are this project's; others say more than an operator wants.
const OWN: &str = "scx_upgrade";

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OWN) || log::max_level() == LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        // In one piece, whoever else writes there. Nobody can be told if it fails.
        let _ = io::stderr().write_all(format!("{level}{}\n", record.args()).as_bytes());
    }

    fn flush(&self) {}
}

/// A line on standard output. That it cannot be written is no failure of what was done: unlike `println!` it never panics.
pub fn print_line(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on standard error, likewise.
pub fn print_error(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Begin, with what is to be said.
pub fn start(level: LevelFilter) {
    // It fails where there is one already: then that one's level stands too.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

/// Begin, with what [`LEVEL`] says; warnings if it says nothing that makes sense.
pub(crate) fn start_as_told() {
    let told = std::env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    start(told.unwrap_or(LevelFilter::Warn));
}

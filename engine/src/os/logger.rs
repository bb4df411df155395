//! Where the engine's words for a person go: warnings, and what it does besides, on stderr. A program with a logger of its own
//! keeps that.

use std::fmt::Display;
use std::io;
use std::io::Write;

use log::Level;
use log::LevelFilter;
use log::Log;
use log::Metadata;
use log::Record;

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

//! What the SDK says while it works, on stderr: warnings, and more where more is asked for.

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
        eprintln!("{level}{}", record.args());
    }

    fn flush(&self) {}
}

/// Begin. `verbose`: how often `-v` was given.
pub fn start(quiet: bool, verbose: u8) {
    log::set_max_level(match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (_, 0) => LevelFilter::Warn,
        (_, 1) => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
    // It fails where there is one already: there is none.
    let _ = log::set_logger(&Stderr);
}

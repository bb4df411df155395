//! How much is said on stderr besides what is asked for.

use log::LevelFilter;
use scx_upgrade_engine::os::logger;

/// Begin. `verbose`: how often `-v` was given.
pub fn start(quiet: bool, verbose: u8) {
    logger::start(match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (_, 0) => LevelFilter::Warn,
        (_, 1) => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
}

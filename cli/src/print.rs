//! Standard output. That it cannot be written is no failure of what was done.

use std::io::ErrorKind;
use std::io::Write as _;

use serde::Serialize;

/// One document on stdout.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => drop(print(&format!("{text}\n"))),
        Err(e) => log::error!("cannot write JSON: {e}"),
    }
}

/// One document in one line.
pub fn json_line(value: &impl Serialize) -> bool {
    match serde_json::to_string(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(e) => {
            log::error!("cannot write JSON: {e}");
            true
        }
    }
}

/// Text on stdout. Does anyone still read? That it cannot be written is no failure of what was done: the exit code is that of what
/// was done.
pub fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => false,
        Err(e) => {
            log::warn!("cannot write to standard output: {e}");
            true
        }
        Ok(()) => true,
    }
}

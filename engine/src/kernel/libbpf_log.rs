//! What libbpf and the verifier say, kept for the error message instead of printed.

use std::cell::RefCell;

use libbpf_rs::PrintLevel;
use libbpf_rs::set_print;

thread_local! {
    /// libbpf calls its print function in the thread that called libbpf.
    static LINES: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Longest log kept: a verifier log can be megabytes, and its end is what names the fault.
const KEEP: usize = 16 << 10;

fn keep(_level: PrintLevel, line: String) {
    LINES.with_borrow_mut(|lines| lines.push_str(&line));
}

/// Run `f`; its result, and what libbpf warned of meanwhile.
pub(crate) fn captured<T>(f: impl FnOnce() -> T) -> (T, String) {
    let previous = set_print(Some((PrintLevel::Warn, keep)));
    LINES.with_borrow_mut(String::clear);
    let result = f();
    set_print(previous);
    let log = LINES.with_borrow_mut(std::mem::take);
    (result, tail(&log))
}

fn tail(log: &str) -> String {
    let log = log.trim_end();
    let mut from = log.len().saturating_sub(KEEP);
    while !log.is_char_boundary(from) {
        from += 1;
    }
    log[from..].to_string()
}

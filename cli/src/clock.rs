//! Times of day, as people write them.

use std::time::SystemTime;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `2026-11-21 11:20:03`, where the machine is.
pub fn local(unix_time: u64) -> String {
    let seconds = unix_time as libc::time_t;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to values of their types that outlive the call; zeroed is a value of tm.
    let tm = unsafe {
        libc::localtime_r(&seconds, tm.as_mut_ptr());
        tm.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

/// How long ago that was, in at most two units.
pub fn ago(unix_time: u64, now: u64) -> String {
    let seconds = now.saturating_sub(unix_time);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_each_other() {
        assert_eq!(local(0).len(), 19);
        assert_eq!(local(1_795_253_261).len(), 19);
        assert!(local(1_795_253_261).starts_with("2026-11-2"));
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(ago(10, 5), "0 s");
        assert_eq!(ago(0, 75), "1 min 15 s");
        assert_eq!(ago(0, 2 * 86400 + 3 * 3600 + 59), "2 d 3 h");
    }
}

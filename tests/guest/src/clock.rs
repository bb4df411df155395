//! The monotonic clock: reading it, and sleeping to a point on it.

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` now, in nanoseconds.
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the result, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * NS_PER_S + now.tv_nsec as u64
}

/// Sleeps until `CLOCK_MONOTONIC` reads at least `target_ns`; returns at once if it already does.
///
/// The target is absolute, so time lost before the call does not lengthen the sleep.
pub fn sleep_until(target_ns: u64) {
    let target = libc::timespec {
        tv_sec: (target_ns / NS_PER_S) as libc::time_t,
        tv_nsec: (target_ns % NS_PER_S) as libc::c_long,
    };
    // SAFETY: `target` outlives the call; with TIMER_ABSTIME the remainder is not written, so null is allowed.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &target, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

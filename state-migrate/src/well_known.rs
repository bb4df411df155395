//! Names that mean the same to every scheduler, so that different ones carry state to each other.
//!
//! A column of such a name has the unit given here, whether it says so or not, and its type has the sign given here;
//! the width is the policy's choice, and widening is automatic. Whoever means something else takes another name.
//!
//! Not here, on purpose: weights, cpumasks and DSQ ids, which a scheduler derives anew from the kernel, and layers,
//! cells and domains, which mean something within one family of schedulers only.

/// A name that means the same to every scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WellKnown {
    /// The column's name.
    pub name: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// Whether its type is signed.
    pub signed: bool,
    /// The type that holds every value of it.
    pub ty: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn column(
    name: &'static str,
    unit: &'static str,
    ty: &'static str,
    meaning: &'static str,
) -> WellKnown {
    WellKnown { name, unit, signed: ty.as_bytes()[0] == b's', ty, meaning }
}

/// The dictionary, by name.
pub const COLUMNS: &[WellKnown] = &[
    column(
        "avg_runtime_ns",
        "ns",
        "u64",
        "time on a CPU from being picked to giving it up, a moving average in which the newest counts a quarter or so",
    ),
    column(
        "block_freq_hz",
        "1/s",
        "u64",
        "how often it blocks to wait, a moving average; what rusty and lavd call blocked or wait frequency",
    ),
    column(
        "last_cpu",
        "cpu",
        "s32",
        "the CPU it last ran on; -1: none yet. Check it against the CPUs there are",
    ),
    column(
        "last_run_at_ns",
        "ns@scx_bpf_now",
        "u64",
        "when it last began to run; 0: never. It ends with the boot",
    ),
    column("last_stop_at_ns", "ns@scx_bpf_now", "u64", "when it last stopped running; 0: never"),
    column("last_woke_at_ns", "ns@scx_bpf_now", "u64", "when it was last woken up; 0: never"),
    column(
        "llc_id",
        "llc",
        "s32",
        "the last-level cache it belongs to, numbered as scx_utils does; -1: none yet",
    ),
    column("node_id", "node", "s32", "the NUMA node it belongs to, as the kernel numbers them; -1: none yet"),
    column(
        "runtime_since_wakeup_ns",
        "ns",
        "u64",
        "time on a CPU since it last woke up, over all turns; what bpfland and cosmos judge interactivity by",
    ),
    column(
        "util_1024_32ms",
        "1/1024@32ms",
        "u32",
        "share of time that it ran or was ready, 0 to 1024 for none to one whole CPU, decaying by half in 32 ms",
    ),
    column(
        "vtime_lag_ns",
        "ns*100/weight",
        "s64",
        "virtual time as lag behind the scheduler's own clock, in ns of run time at weight 100: positive if it is \
         owed time. Never absolute, which means nothing to another clock; clamp it to a slice or two on arrival",
    ),
    column(
        "wakeup_freq_hz",
        "1/s",
        "u64",
        "how often it is woken up, a moving average; per second and not per 100 ms as in bpfland, flash and cosmos",
    ),
];

/// The clocks that start with the boot, as a BPF program reads them.
const BOOT_CLOCKS: [&str; 5] =
    ["scx_bpf_now", "bpf_ktime_get_ns", "bpf_ktime_get_boot_ns", "bpf_ktime_get_coarse_ns", "bpf_jiffies64"];

/// Whether values of this unit are times of a clock that starts with the boot, as `ns@scx_bpf_now` says: the unit, an `@`,
/// and how the clock is read. In another boot such a value means nothing, and may be in the future.
///
/// Which of these clocks goes on while the machine is suspended does not matter: a value is compared with the same clock.
pub fn is_time_stamp(unit: &str) -> bool {
    unit.rsplit_once('@').is_some_and(|(_, clock)| BOOT_CLOCKS.contains(&clock))
}

/// What a name means to every scheduler, if anything.
pub fn find(name: &str) -> Option<&'static WellKnown> {
    COLUMNS.binary_search_by(|w| w.name.cmp(name)).ok().map(|i| &COLUMNS[i])
}

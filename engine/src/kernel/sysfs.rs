//! What the running kernel says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::malformed_kfuncs;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;

/// The largest number of tasks that any kernel takes (include/linux/threads.h).
const PID_MAX_LIMIT: u32 = 4 << 20;
/// How often the kernel is asked whether it is there yet.
const LOOK: Duration = Duration::from_micros(200);
/// How long the kernel may take from `disabling` to `disabled`.
const SETTLES: Duration = Duration::from_secs(30);
const SYSFS: &str = "/sys/kernel/sched_ext";
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
/// The oldest kernel that the host works with.
const OLDEST: (u32, u32) = (6, 16);

/// `/sys/kernel/sched_ext/state`: `disabled`, `enabling`, `enabled`, `disabling`.
pub fn state() -> String {
    read("state")
}

/// How often a scheduler was enabled since boot. It does not change when a policy is swapped.
pub fn enable_seq() -> u64 {
    read("enable_seq").parse().unwrap_or(0)
}

/// Name of the scheduler that the kernel sees, empty if there is none.
pub fn ops() -> String {
    read("root/ops")
}

/// What the kernel's sched_ext counts of what happens beside the rule, by name: `root/events`. Empty where it does not.
pub fn events() -> BTreeMap<String, u64> {
    let text = read("root/events");
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, count)| Some((name.to_string(), count.trim().parse().ok()?))).collect()
}

/// Context switches since boot, of all CPUs; 0 if they cannot be read.
pub fn switches() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Tasks on the whole system, as `/proc/loadavg` counts them; 0 if it cannot be read.
pub fn tasks() -> u64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let total = text.split_whitespace().nth(3).and_then(|counts| counts.split('/').nth(1));
    total.and_then(|total| total.parse().ok()).unwrap_or(0)
}

/// The most tasks that there can be as the machine is set up now, with some room: those that have ended are tasks for a while yet.
pub(crate) fn most_tasks() -> u32 {
    let limits = ["threads-max", "pid_max"].iter().filter_map(|limit| {
        fs::read_to_string(Path::new("/proc/sys/kernel").join(limit)).ok()?.trim().parse::<u32>().ok()
    });
    limits.min().unwrap_or(PID_MAX_LIMIT).min(PID_MAX_LIMIT) + 1_024
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(SYSFS).join(file)).unwrap_or_default().trim().to_string()
}

/// Does the kernel have sched_ext?
pub(crate) fn has_sched_ext() -> bool {
    Path::new(SYSFS).join("state").exists()
}

/// `uname -r`
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

/// Is the kernel of the versions that the host works with?
///
/// # Errors
/// [`Error::OldKernel`]
pub fn check_release() -> Result<()> {
    let release = release();
    // One that does not say cannot be judged.
    if version_of(&release).is_none_or(|version| version >= OLDEST) {
        return Ok(());
    }
    Err(Error::OldKernel { release })
}

/// Major and minor number of this kernel, where `uname -r` says them.
pub fn version() -> Option<(u32, u32)> {
    version_of(&release())
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Does the kernel compile BPF? Kfuncs and struct_ops are not interpreted.
///
/// # Errors
/// [`Error::NoJit`]
pub fn check_jit() -> Result<()> {
    // Without the file it is always on, or there is none, which attach tells.
    let setting = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    if setting.trim() == "0" { Err(Error::NoJit) } else { Ok(()) }
}

/// The kernel's BTF, raw.
///
/// # Errors
/// [`Error::NoBtf`], or it cannot be read.
pub fn btf() -> Result<Vec<u8>> {
    match fs::read(VMLINUX_BTF) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoBtf),
        other => other.trying(format!("cannot read {VMLINUX_BTF}")),
    }
}

/// Refuse a kernel whose BTF shows implicit kfunc arguments: nothing can be loaded on it.
///
/// # Errors
/// [`Error::BrokenBtf`]
pub fn check_btf(raw: &[u8]) -> Result<()> {
    let kfuncs = malformed_kfuncs(&Btf::parse(raw)?);
    if kfuncs.is_empty() { Ok(()) } else { Err(Error::BrokenBtf { kfuncs }) }
}

/// Does the kernel's BTF have the struct_ops of sched_ext?
///
/// # Errors
/// [`Error::NoStructOps`]
pub fn check_struct_ops(btf: &Btf<'_>) -> Result<()> {
    let has = |name| btf.find(Kind::Struct, name).is_some();
    match has("sched_ext_ops") && has("bpf_struct_ops_sched_ext_ops") {
        true => Ok(()),
        false => Err(Error::NoStructOps),
    }
}

/// Waits until `state` is `wanted`: `attach` and `detach` return before the last steps are done. False: it took too long.
pub fn wait_for_state(state: impl Fn() -> String, wanted: &str, at_most: Duration) -> bool {
    wait_until(|| state() == wanted, at_most)
}

/// Waits while the kernel enables or disables a scheduler. Only then does it say why one was ejected.
pub fn wait_until_settled(state: impl Fn() -> String) {
    wait_until(|| !matches!(state().as_str(), "disabling" | "enabling"), SETTLES);
}

fn wait_until(is_so: impl Fn() -> bool, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version_of("6.16.12+deb14-cloud-amd64"), Some((6, 16)));
        assert_eq!(version_of("7.3.4"), Some((7, 3)));
        assert!(version_of("6.9.1") < Some(OLDEST) && version_of("6.100-rc1") > Some(OLDEST));
        assert_eq!(version_of("custom"), None);
    }
}

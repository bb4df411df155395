//! What the running kernel says of itself.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;

const SYSFS: &str = "/sys/kernel/sched_ext";
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

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

/// Tasks on the whole system, as `/proc/loadavg` counts them; 0 if it cannot be read.
pub fn tasks() -> u64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let total = text.split_whitespace().nth(3).and_then(|counts| counts.split('/').nth(1));
    total.and_then(|total| total.parse().ok()).unwrap_or(0)
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(SYSFS).join(file)).unwrap_or_default().trim().to_string()
}

/// Can this process and this kernel run a host at all? Cheap enough for every command.
///
/// # Errors
/// [`Error::NotRoot`] or [`Error::NoSchedExt`].
pub fn check() -> Result<()> {
    // SAFETY: no arguments, no effects.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::NotRoot);
    }
    if !Path::new(SYSFS).join("state").exists() {
        return Err(Error::NoSchedExt);
    }
    Ok(())
}

/// The kernel's BTF, raw.
///
/// # Errors
/// A kernel without CONFIG_DEBUG_INFO_BTF.
pub fn btf() -> Result<Vec<u8>> {
    fs::read(VMLINUX_BTF).trying(format!("cannot read {VMLINUX_BTF} (CONFIG_DEBUG_INFO_BTF=y is needed)"))
}

/// Refuse a kernel whose BTF shows implicit kfunc arguments: nothing can be loaded on it. Costs a pass over the BTF,
/// so only done when a host is started.
///
/// # Errors
/// [`Error::BrokenBtf`]
pub fn check_btf() -> Result<()> {
    let kfuncs = scx_utils::compat::malformed_scx_kfuncs();
    if kfuncs.is_empty() { Ok(()) } else { Err(Error::BrokenBtf { kfuncs }) }
}

/// Wait until the kernel says `enabled`. `exited`: did the scheduler's exit op run? Attach succeeds even where the kernel
/// then takes the scheduler off, and so it ends at `disabled`.
pub fn wait_until_enabled(exited: impl Fn() -> bool, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    loop {
        let state = state();
        if state == "enabled" {
            return true;
        }
        if (state == "disabled" && exited()) || Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Wait until the kernel's `state` is `wanted`. `attach` and `detach` return before the last steps are done.
pub fn wait_for_state(wanted: &str, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    loop {
        if state() == wanted {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

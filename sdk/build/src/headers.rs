//! The headers for policy authors, carried inside this crate so that a policy needs nothing else on disk.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

/// A header's name below `scx_upgrade/`, and its text.
macro_rules! header {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../bpf/include/scx_upgrade/", $name)))
    };
}

/// What every policy needs, and in `lib/` the helpers. A test compares the list with the folder.
const HEADERS: &[(&str, &str)] = &[
    header!("abi.h"),
    header!("call.bpf.h"),
    header!("convert.bpf.h"),
    header!("declare.bpf.h"),
    header!("policy.bpf.h"),
    header!("queues.bpf.h"),
    header!("records.bpf.h"),
    header!("step.bpf.h"),
    header!("sweep.bpf.h"),
    header!("task_table.bpf.h"),
    header!("work.bpf.h"),
    header!("lib/aging.bpf.h"),
    header!("lib/average.bpf.h"),
    header!("lib/cgroup.bpf.h"),
    header!("lib/columns.bpf.h"),
    header!("lib/force_idle.bpf.h"),
    header!("lib/health.bpf.h"),
    header!("lib/idle.bpf.h"),
    header!("lib/kthread.bpf.h"),
    header!("lib/preempt.bpf.h"),
    header!("lib/shares.bpf.h"),
    header!("lib/slice.bpf.h"),
    header!("lib/timer.bpf.h"),
    header!("lib/vtime.bpf.h"),
];

/// Write the headers below `$OUT_DIR` and return the folder for the include path.
pub(crate) fn install() -> Result<String> {
    let root = PathBuf::from(env::var("OUT_DIR").context("OUT_DIR is not set: call this from build.rs")?)
        .join("scx_upgrade-include");
    for (name, text) in HEADERS {
        let path = root.join("scx_upgrade").join(name);
        let dir = path.parent().context("a header has no folder")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    root.into_os_string().into_string().ok().context("OUT_DIR is not UTF-8")
}

#[cfg(test)]
mod tests;

//! The headers for policy authors, carried inside this crate so that a policy needs nothing else on disk.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

const HEADERS: [(&str, &str); 23] = [
    ("abi.h", include_str!("../../../bpf/include/scx_upgrade/abi.h")),
    ("aging.bpf.h", include_str!("../../../bpf/include/scx_upgrade/aging.bpf.h")),
    ("timer.bpf.h", include_str!("../../../bpf/include/scx_upgrade/timer.bpf.h")),
    ("average.bpf.h", include_str!("../../../bpf/include/scx_upgrade/average.bpf.h")),
    ("call.bpf.h", include_str!("../../../bpf/include/scx_upgrade/call.bpf.h")),
    ("cgroup.bpf.h", include_str!("../../../bpf/include/scx_upgrade/cgroup.bpf.h")),
    ("columns.bpf.h", include_str!("../../../bpf/include/scx_upgrade/columns.bpf.h")),
    ("convert.bpf.h", include_str!("../../../bpf/include/scx_upgrade/convert.bpf.h")),
    ("health.bpf.h", include_str!("../../../bpf/include/scx_upgrade/health.bpf.h")),
    ("idle.bpf.h", include_str!("../../../bpf/include/scx_upgrade/idle.bpf.h")),
    ("kthread.bpf.h", include_str!("../../../bpf/include/scx_upgrade/kthread.bpf.h")),
    ("policy.bpf.h", include_str!("../../../bpf/include/scx_upgrade/policy.bpf.h")),
    ("preempt.bpf.h", include_str!("../../../bpf/include/scx_upgrade/preempt.bpf.h")),
    ("queues.bpf.h", include_str!("../../../bpf/include/scx_upgrade/queues.bpf.h")),
    ("records.bpf.h", include_str!("../../../bpf/include/scx_upgrade/records.bpf.h")),
    ("force_idle.bpf.h", include_str!("../../../bpf/include/scx_upgrade/force_idle.bpf.h")),
    ("task_table.bpf.h", include_str!("../../../bpf/include/scx_upgrade/task_table.bpf.h")),
    ("shares.bpf.h", include_str!("../../../bpf/include/scx_upgrade/shares.bpf.h")),
    ("slice.bpf.h", include_str!("../../../bpf/include/scx_upgrade/slice.bpf.h")),
    ("step.bpf.h", include_str!("../../../bpf/include/scx_upgrade/step.bpf.h")),
    ("sweep.bpf.h", include_str!("../../../bpf/include/scx_upgrade/sweep.bpf.h")),
    ("vtime.bpf.h", include_str!("../../../bpf/include/scx_upgrade/vtime.bpf.h")),
    ("work.bpf.h", include_str!("../../../bpf/include/scx_upgrade/work.bpf.h")),
];

/// Write the headers below `$OUT_DIR` and return the folder for the include path.
pub(crate) fn install() -> Result<String> {
    let root = PathBuf::from(env::var("OUT_DIR").context("OUT_DIR is not set: call this from build.rs")?)
        .join("scx_upgrade-include");
    let dir = root.join("scx_upgrade");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in HEADERS {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    root.into_os_string().into_string().ok().context("OUT_DIR is not UTF-8")
}

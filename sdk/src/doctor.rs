//! What could stand in the way, looked at one by one; nothing is changed by it. Each check that fails has the same error
//! that a command has that meets it.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use state_migrate::Btf;

use crate::environment;
use crate::error::Error;
use crate::error::Result;
use crate::history::History;
use crate::host::Host;
use crate::kernel;
use crate::pins;
use crate::pins::Pins;
use crate::registry::SlotInfo;
use crate::topology::Topology;

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; commands work all the same.
    Note,
    /// Could not be looked at, because something before it stands in the way.
    Unknown,
    /// Commands fail by it.
    Blocks,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found; where it blocks, the error with what to do.
    pub found: String,
    /// Why it matters.
    pub why: String,
}

/// What a check has found, unless it blocks.
enum Found {
    Ok(String),
    Note(String),
    Unknown(&'static str),
}

type Finding = Result<Found>;

/// Look at all of it.
pub fn examine() -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |name: &str, why: &str, finding: Finding| {
        let (verdict, found) = match finding {
            Ok(Found::Ok(text)) => (Verdict::Ok, text),
            Ok(Found::Note(text)) => (Verdict::Note, text),
            Ok(Found::Unknown(text)) => (Verdict::Unknown, text.to_string()),
            Err(error) => (Verdict::Blocks, error.to_string()),
        };
        checks.push(Check { name: name.to_string(), verdict, found, why: why.to_string() });
    };
    let ok = |text: &str| Found::Ok(text.to_string());

    let root = kernel::check_rights();
    let is_root = root.is_ok();
    add(
        "rights",
        "loading BPF and attaching a scheduler take them",
        root.map(|()| ok("root, with all it takes")),
    );
    add(
        "kernel",
        "what the host calls and how it is attached changed up to 6.16",
        kernel::check_release().map(|()| Found::Ok(kernel::release())),
    );
    let sched_ext = kernel::check_sched_ext();
    let has_sched_ext = sched_ext.is_ok();
    add("sched_ext", "the kernel's part of it", sched_ext.map(|()| ok("there")));
    for (name, why, finding) in of_btf(has_sched_ext) {
        add(name, why, finding);
    }
    add("BPF compiler", "schedulers are not interpreted", kernel::check_jit().map(|()| ok("on")));
    add("lockdown", "a locked kernel keeps parts of BPF to itself", Ok(lockdown()));
    let bpffs = pins::check_bpffs();
    let has_bpffs = bpffs.is_ok();
    add(
        "bpffs",
        "the host lives in pins there, not in a process",
        bpffs.map(|()| ok("mounted at /sys/fs/bpf")),
    );
    add("CPUs", "the host has a table of them", cpus());
    let seen = is_root && has_bpffs && has_sched_ext;
    add("scheduler", "the kernel runs one at a time", if seen { scheduler() } else { unseen() });
    add("pins", "they say what runs and how to go back", if seen { pinned() } else { unseen() });
    let state = if is_root { history() } else { unseen() };
    add("history", "what was done, for people; no command depends on it", state);
    checks
}

fn unseen() -> Finding {
    Ok(Found::Unknown("not looked at: what is said above stands in the way"))
}

/// What takes the kernel's BTF.
fn of_btf(has_sched_ext: bool) -> Vec<(&'static str, &'static str, Finding)> {
    const BTF: (&str, &str) = ("BTF", "a policy's accesses are fitted to the kernel by it");
    const OPS: (&str, &str) = ("struct_ops", "what a scheduler is attached by");
    const KFUNCS: (&str, &str) = ("kfuncs", "functions of the kernel that the host calls");
    let raw = match kernel::btf().and_then(|raw| kernel::check_btf(&raw).map(|()| raw)) {
        Ok(raw) => raw,
        Err(e) => {
            return vec![(BTF.0, BTF.1, Err(e)), (OPS.0, OPS.1, unseen()), (KFUNCS.0, KFUNCS.1, unseen())];
        }
    };
    let good = format!("there, {} bytes, and not broken", raw.len());
    if !has_sched_ext {
        // What it lacks then is no news.
        return vec![
            (BTF.0, BTF.1, Ok(Found::Ok(good))),
            (OPS.0, OPS.1, unseen()),
            (KFUNCS.0, KFUNCS.1, unseen()),
        ];
    }
    let (ops, kfuncs) = match Btf::parse(&raw) {
        Ok(btf) => (kernel::check_struct_ops(&btf), kernel::check_kfuncs(&btf)),
        Err(e) => return vec![(BTF.0, BTF.1, Err(e.into()))],
    };
    vec![
        (BTF.0, BTF.1, Ok(Found::Ok(good))),
        (OPS.0, OPS.1, ops.map(|()| Found::Ok("sched_ext_ops".to_string()))),
        (KFUNCS.0, KFUNCS.1, kfuncs.map(|()| Found::Ok("all there".to_string()))),
    ]
}

/// What the kernel locks away: `none [integrity] confidentiality`.
fn lockdown() -> Found {
    let Ok(text) = fs::read_to_string(LOCKDOWN) else {
        return Found::Ok("none, or not to be seen".to_string());
    };
    let mode = text.split(['[', ']']).nth(1).unwrap_or("none");
    match mode {
        "none" | "integrity" => Found::Ok(mode.to_string()),
        // LOCKDOWN_BPF_READ_KERNEL: the verifier knows no bpf_probe_read_kernel() then (kernel/trace/bpf_trace.c).
        _ => Found::Note(format!(
            "{mode}: policies that call bpf_probe_read_kernel() do not load; the host does not. `lockdown=integrity` on \
             the kernel's command line lets them"
        )),
    }
}

fn cpus() -> Finding {
    let topology = Topology::read()?;
    Ok(Found::Ok(format!("{}, at {} last-level caches", topology.nr_cpus(), topology.nr_llcs)))
}

/// Whether the place is free, or the host's.
fn scheduler() -> Finding {
    let state = kernel::state();
    let pins = Pins::open()?;
    if state != "disabled" && !pins.link().exists() {
        return Err(environment::unknown_scheduler(&pins));
    }
    Ok(Found::Ok(match kernel::ops().as_str() {
        "" => format!("none, the kernel's state is {state}"),
        ops => format!("{ops}, {state}"),
    }))
}

fn pinned() -> Finding {
    let pins = Pins::open()?;
    let host = match Host::running(&pins) {
        Err(Error::NothingRunning | Error::OtherScheduler { .. }) => {
            return Ok(match pins.is_empty() {
                true => Found::Ok("none: nothing runs".to_string()),
                false => Found::Note(
                    "left by a start that was cut off: the next `scx-upgrade run` or `stop` removes them"
                        .to_string(),
                ),
            });
        }
        other => other?,
    };
    let active = host.data.active();
    if let Some(pending) = &host.registry.pending {
        return Ok(Found::Note(format!(
            "a command was cut off on its way to generation {}: the next one that changes something finishes or undoes it",
            pending.generation.number
        )));
    }
    let name = host.registry.slot(active.slot).map(SlotInfo::title);
    let name = name.unwrap_or_else(|| "no policy, tasks are served as they come".to_string());
    Ok(Found::Ok(format!("whole: generation {} runs, {name}", active.generation)))
}

/// The history's folder. Trouble with it is never in the way.
fn history() -> Finding {
    let history = History::new();
    let folder = history.folder();
    let room = || free_bytes(folder).is_none_or(|bytes| bytes >= 1 << 20);
    Ok(match history.check() {
        Ok(()) if room() => Found::Ok(format!("{} can be written", folder.display())),
        Ok(()) => {
            Found::Note(format!("{}: the disk is as good as full, entries will be missing", folder.display()))
        }
        Err(e) => Found::Note(format!("{e}; entries will be missing until that is mended")),
    })
}

fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
    let mut buf = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` is NUL-terminated and `buf` is large enough; zeroed is a value of statvfs.
    let stat = unsafe { (libc::statvfs(path.as_ptr(), buf.as_mut_ptr()) == 0).then(|| buf.assume_init()) }?;
    Some(stat.f_bavail * stat.f_frsize)
}

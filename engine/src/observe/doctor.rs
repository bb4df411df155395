//! What could stand in the way, looked at one by one; nothing is changed by it. Each check that fails has the same error
//! that a command has that meets it.

use std::fs;
use std::path::Path;

use libbpf_rs::MapCore;
use serde::Deserialize;
use serde::Serialize;
use state_migrate::Btf;

use crate::error::Error;
use crate::error::Result;
use crate::host::Host;
use crate::host::names::TASK_TABLE;
use crate::host::pins;
use crate::host::pins::Pins;
use crate::host::registry::SlotInfo;
use crate::host::requirements;
use crate::host::resident::Resident as _;
use crate::kernel::deadline::Demand;
use crate::kernel::machine;
use crate::kernel::machine::Memory;
use crate::kernel::machine::Namespace;
use crate::kernel::machine::Tree;
use crate::kernel::sysfs;
use crate::kernel::topology::Topology;
use crate::observe::history::History;

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

    let root = requirements::check_rights();
    let is_root = root.is_ok();
    add(
        "rights",
        "loading BPF and attaching a scheduler take them",
        root.map(|()| ok("root, with all it takes")),
    );
    add(
        "kernel",
        "what the host calls and how it is attached changed up to 6.16",
        sysfs::check_release().map(|()| Found::Ok(sysfs::release())),
    );
    let sched_ext = requirements::check_sched_ext();
    let has_sched_ext = sched_ext.is_ok();
    add("sched_ext", "the kernel's part of it", sched_ext.map(|()| ok("there")));
    for (name, why, finding) in of_btf(has_sched_ext) {
        add(name, why, finding);
    }
    let tree = Tree::default();
    add(
        "isolated CPUs",
        "the kernel refuses sched_ext where the boot took CPUs out of its domains",
        requirements::check_isolated(&tree).map(|()| ok("none by a boot option")),
    );
    add(
        "bandwidth",
        "the kernel reserves deadline bandwidth when a scheduler is attached",
        if is_root && has_sched_ext { bandwidth() } else { unseen() },
    );
    add("namespaces", "what a command sees and names depends on them", Ok(namespaces(&tree.namespaces())));
    add("memory", "records of tasks are charged to the cgroup of who starts the host", memory(&tree));
    add("cgroups", "cgroups are swept along the hierarchy of cgroup v2", Ok(cgroups(&tree)));
    add(
        "core sched.",
        "the host leaves the order of SMT siblings to the kernel",
        if is_root && has_sched_ext { Ok(core_scheduling()) } else { unseen() },
    );
    let version = sysfs::version();
    add(
        "known traps",
        "of the versions that this kernel is one of",
        Ok(Found::Ok(traps(version).join("; "))),
    );
    add("BPF compiler", "schedulers are not interpreted", sysfs::check_jit().map(|()| ok("on")));
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
    add("read once", "what a host reads when it is started", if seen { Ok(read_once()) } else { unseen() });
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
    let raw = match sysfs::btf().and_then(|raw| sysfs::check_btf(&raw).map(|()| raw)) {
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
        Ok(btf) => (sysfs::check_struct_ops(&btf), requirements::check_kfuncs(&btf)),
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

/// Whether the kernel has the bandwidth that it would reserve.
fn bandwidth() -> Finding {
    Ok(match requirements::check_bandwidth()? {
        None => Found::Unknown("the kernel does not let it be read: an attach that fails tells"),
        Some(demands) if demands.is_empty() => {
            Found::Ok("this kernel reserves none when a scheduler is attached".to_string())
        }
        Some(demands) => Found::Ok(demands.iter().map(Demand::to_string).collect::<Vec<_>>().join("; ")),
    })
}

fn namespaces(other: &[Namespace]) -> Found {
    if other.is_empty() {
        return Found::Ok("the machine's own".to_string());
    }
    let each =
        other.iter().map(|namespace| format!("another {} namespace: {}", namespace.name, namespace.hides));
    Found::Note(format!(
        "{}; run commands in the machine's own namespaces (nsenter -t 1 -a)",
        each.collect::<Vec<_>>().join("; ")
    ))
}

/// Whether the records of all tasks that there can be have room in the cgroup that pays for them.
fn memory(tree: &Tree) -> Finding {
    let memory = tree.memory();
    let (tasks, record) = (sysfs::most_tasks(), requirements::task_record());
    machine::check_memory(memory.as_ref(), tasks, record)?;
    let needs = machine::memory_for(tasks, record).div_ceil(1 << 20);
    Ok(Found::Ok(match memory {
        None => format!("no limit; the records of {tasks} tasks take up to {needs} MiB"),
        Some(Memory { cgroup, left, .. }) => {
            format!(
                "{} MiB left in {cgroup}; the records of {tasks} tasks take up to {needs} MiB",
                left >> 20
            )
        }
    }))
}

fn cgroups(tree: &Tree) -> Found {
    if tree.has_cpu_on_cgroup_v1() {
        return Found::Note(
            "the cpu controller is on cgroup v1: weights come from cpu.shares, and a sweep does not see its cgroups, so \
             their records are brought up to date one by one, when a task of theirs is scheduled. Boot with \
             systemd.unified_cgroup_hierarchy=1"
                .to_string(),
        );
    }
    Found::Ok("cgroup v2, or none".to_string())
}

fn core_scheduling() -> Found {
    match machine::cpus() {
        Err(_) => Found::Unknown("the kernel does not let it be read"),
        Ok(cpus) if cpus.iter().any(|cpu| cpu.core_scheduling) => Found::Note(
            "some task has a cookie: the kernel orders SMT siblings by itself, and a policy's core_sched_before is not called"
                .to_string(),
        ),
        Ok(_) => Found::Ok("not in use".to_string()),
    }
}

/// What is known of kernels of this version that someone should know of it.
fn traps(version: Option<(u32, u32)>) -> Vec<&'static str> {
    type Version = (u32, u32);
    const FIRST: Version = (0, 0);
    const LAST: Version = (u32::MAX, 0);
    const TRAPS: [(Version, Version, &str); 7] = [
        (FIRST, (6, 19), "takes sleepable ops where they must not sleep: refused here"),
        (FIRST, (6, 18), "tells late that a task has ended: seen by a tracepoint here"),
        (FIRST, (7, 0), "cannot re-enqueue a queue: tasks are moved by way of the global one"),
        ((6, 16), (7, 3), "oopses when a program of type EXT (freplace) is loaded for an op: load none"),
        ((7, 0), LAST, "binds a policy to a struct_ops map that was ever updated: never done here"),
        ((7, 1), (7, 2), "was built by some distributions with broken BTF: see BTF above"),
        ((7, 3), LAST, "clears dsq_vtime when a task leaves a scheduler: kept here over a reattach"),
    ];
    let Some(version) = version else { return vec!["none known: the version cannot be read"] };
    let of = TRAPS.iter().filter(|(from, to, _)| *from <= version && version <= *to);
    let found: Vec<_> = of.map(|(_, _, text)| *text).collect();
    if found.is_empty() { vec!["none known"] } else { found }
}

/// Whether what the running host read when it was started is so still.
fn read_once() -> Found {
    let pins = Pins::open();
    let running = pins.as_ref().ok().and_then(|pins| Host::running(pins).ok().map(|host| (host, pins)));
    let Some((host, pins)) = running else {
        return Found::Ok("nothing runs: all is read anew when a host is started".to_string());
    };
    let rows = pins.map(TASK_TABLE).map_or(0, |map| map.max_entries());
    let same = Topology::read().is_ok_and(|topology| host.data.has_topology(&topology));
    changed_since(rows, sysfs::most_tasks(), same)
}

/// `rows`: the tasks that the host made room for; `tasks`: those that there can be now.
fn changed_since(rows: u32, tasks: u32, same_topology: bool) -> Found {
    let mut changed = Vec::new();
    if rows < tasks {
        changed.push(format!(
            "kernel.threads-max or pid_max was raised: the host has room on its task table for {rows} of {tasks} tasks, and a \
             sweep finds the rest by the kernel's lists, which takes longer"
        ));
    }
    if !same_topology {
        changed
            .push("caches or cores of CPUs are not as they were: policies go by those of then".to_string());
    }
    if changed.is_empty() {
        return Found::Ok(
            "as when the host was started: CPUs, caches and cores, and how many tasks there can be. CPUs that come or go \
             are noticed at once, the other two here"
                .to_string(),
        );
    }
    Found::Note(format!("{}; `scx-upgrade stop` and `run` read it anew", changed.join("; ")))
}

/// Whether the place is free, or the host's.
fn scheduler() -> Finding {
    let state = sysfs::state();
    let pins = Pins::open()?;
    if state != "disabled" && !pins.link().exists() {
        return Err(pins.unknown_scheduler());
    }
    Ok(Found::Ok(match sysfs::ops().as_str() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn note(found: Found) -> Option<String> {
        match found {
            Found::Note(text) => Some(text),
            Found::Ok(_) | Found::Unknown(_) => None,
        }
    }

    #[test]
    fn traps_are_those_of_the_version_that_runs() {
        let has = |version, words: &str| traps(Some(version)).iter().any(|trap| trap.contains(words));
        assert!(has((6, 16), "sleepable") && has((6, 19), "sleepable") && !has((7, 0), "sleepable"));
        assert!(has((7, 0), "re-enqueue") && !has((7, 1), "re-enqueue"));
        assert!(has((7, 3), "freplace") && has((7, 3), "dsq_vtime") && !has((7, 4), "freplace"));
        assert_eq!(traps(None).len(), 1);
    }

    #[test]
    fn what_changed_since_the_host_was_started_is_said_with_what_to_do() {
        assert_eq!(note(changed_since(5_000, 5_000, true)), None);
        assert_eq!(note(changed_since(5_000, 4_000, true)), None, "fewer tasks than there is room for");
        let more = note(changed_since(5_000, 9_000, true)).unwrap();
        assert!(more.contains("5000 of 9000 tasks") && more.contains("`scx-upgrade stop`"), "{more}");
        let both = note(changed_since(5_000, 9_000, false)).unwrap();
        assert!(both.contains("threads-max") && both.contains("caches or cores"), "{both}");
    }

    #[test]
    fn namespaces_are_a_note_with_the_way_out() {
        assert_eq!(note(namespaces(&[])), None);
        let other = [Namespace { name: "cgroup", hides: "cgroups above its root are not swept" }];
        let said = note(namespaces(&other)).unwrap();
        assert!(said.contains("another cgroup namespace") && said.contains("nsenter -t 1 -a"), "{said}");
    }
}

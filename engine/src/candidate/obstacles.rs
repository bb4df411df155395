//! Obstacles: parts of a policy's object that have no effect in the host, or that the host cannot run. Every verb asks here,
//! so that `info`, `check`, `plan` and `swap` say the same. A part whose absence changes how tasks are scheduled is refused;
//! any other is a warning.

use std::collections::BTreeMap;
use std::fmt;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::OpenObject;
use libbpf_rs::libbpf_sys;
use serde::Deserialize;
use serde::Serialize;

use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::kernel::object;
use crate::kernel::object::SCX_PROBE;
use crate::kernel::ops::Ops;

/// Ops that only a scheduler attached by itself has.
pub(crate) const DIRECT_OPS: [&str; 2] = ["init", "exit"];
/// The host's ops: `host_ops` in `bpf/host/main.bpf.c`, without [`DIRECT_OPS`]. A test compares the two.
const HOSTED: [&str; 30] = [
    "cgroup_cancel_move",
    "cgroup_exit",
    "cgroup_init",
    "cgroup_move",
    "cgroup_prep_move",
    "cgroup_set_bandwidth",
    "cgroup_set_idle",
    "cgroup_set_weight",
    "cpu_offline",
    "cpu_online",
    "dequeue",
    "disable",
    "dispatch",
    "dump",
    "dump_cpu",
    "dump_task",
    "enable",
    "enqueue",
    "exit_task",
    "init_task",
    "quiescent",
    "runnable",
    "running",
    "select_cpu",
    "set_cpumask",
    "set_weight",
    "stopping",
    "tick",
    "update_idle",
    "yield",
];
/// An op that matters only where core scheduling is in use.
const CORE_SCHED: &str = "core_sched_before";
/// The host's `dispatch_max_batch`.
const MAX_BATCH: u64 = 64;
/// The host's `timeout_ms`.
const TIMEOUT_MS: u64 = 30_000;
/// `init` and `exit` as `SCXU_POLICY_DEFINE` sets them.
const OWN_DIRECT: [(&str, &str); 2] = [("init", "policy_direct_init"), ("exit", "policy_direct_exit")];

/// A part of a policy's object that has no effect in the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// Whether a swap refuses the policy for it. Otherwise a swap warns.
    pub refused: bool,
    /// The part, why it has no effect, and what the author should do.
    pub message: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The obstacles in one policy.
#[derive(Debug, Clone)]
pub struct Obstacles {
    policy: String,
    all: Vec<Obstacle>,
}

/// Where a policy is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// In a slot of the host.
    Host,
    /// Attached by itself.
    Direct,
}

/// A program of the object.
struct Program {
    name: String,
    section: String,
    kind: u32,
    sleepable: bool,
    /// Whether libbpf loads it: a `?` in its section says no.
    autoload: bool,
}

impl Obstacles {
    /// Of a policy, for the host. Needs no kernel.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`]
    pub fn of(policy: &Policy) -> Result<Obstacles> {
        let open = object::open(policy.object(), None)?;
        Ok(Obstacles::read(&open, &Ops::read(&open, &policy.btf()?)?, Target::Host))
    }

    /// Of an object that is open, before any op is cleared.
    pub(crate) fn read(open: &OpenObject, ops: &Ops, target: Target) -> Obstacles {
        Obstacles {
            policy: ops.name.clone(),
            all: find(&ops.programs, &ops.numbers, &programs(open), target),
        }
    }

    /// All of them, those that are refused first.
    pub fn all(&self) -> &[Obstacle] {
        &self.all
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.all.iter().filter(|o| !o.refused).map(|o| format!("{}: {o}", self.policy))
    }

    /// Refuse the policy if any of them says so.
    ///
    /// # Errors
    /// [`Error::NotHosted`]
    pub fn refuse(&self) -> Result<()> {
        let refused: Vec<String> = self.all.iter().filter(|o| o.refused).map(|o| o.message.clone()).collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(Error::NotHosted { policy: self.policy.clone(), obstacles: refused }),
        }
    }
}

/// The ops that may sleep, which the host refuses.
pub(crate) fn sleepable_ops(open: &OpenObject, ops: &Ops) -> Vec<String> {
    let programs = programs(open);
    let hosted = ops.programs.iter().filter(|(op, _)| HOSTED.contains(&op.as_str()));
    let sleeps = |name: &String| programs.iter().any(|p| p.name == *name && p.sleepable);
    hosted.filter(|(_, name)| sleeps(name)).map(|(op, _)| op.clone()).collect()
}

fn programs(open: &OpenObject) -> Vec<Program> {
    let read = |program: libbpf_rs::OpenProgram<'_>| {
        let pointer = program.as_libbpf_object().as_ptr();
        let section = program.section().to_string_lossy().into_owned();
        // SAFETY: the pointer is the open program's own; the calls only read it.
        let (flags, kind, autoload) = unsafe {
            (
                libbpf_sys::bpf_program__flags(pointer),
                libbpf_sys::bpf_program__type(pointer),
                libbpf_sys::bpf_program__autoload(pointer),
            )
        };
        Program {
            name: program.name().to_string_lossy().into_owned(),
            kind,
            sleepable: flags & libbpf_sys::BPF_F_SLEEPABLE != 0 || section.starts_with("struct_ops.s"),
            autoload,
            section,
        }
    };
    open.progs().map(read).collect()
}

fn find(
    ops: &BTreeMap<String, String>,
    numbers: &BTreeMap<String, u64>,
    programs: &[Program],
    target: Target,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |refused, message: String| found.push(Obstacle { refused, message });
    for (op, own) in OWN_DIRECT {
        if ops.get(op).is_some_and(|program| program != own) {
            add(true, own_init_or_exit(op));
        }
    }
    if target == Target::Host {
        for (op, program) in ops.iter().filter(|(op, _)| !DIRECT_OPS.contains(&op.as_str())) {
            if op == CORE_SCHED {
                add(
                    false,
                    format!(
                        "the op {op} has no effect, because the host does not define it: where core scheduling is in \
                         use, the kernel orders tasks itself. Remove the op, or use --direct"
                    ),
                );
            } else if !HOSTED.contains(&op.as_str()) {
                add(
                    true,
                    format!(
                        "the op {op} has no effect, because the host does not define it: the kernel would never call \
                         {program}. Remove the op, or use --direct"
                    ),
                );
            } else if programs.iter().any(|p| p.name == *program && p.sleepable) {
                add(
                    true,
                    format!(
                        "the op {op} is sleepable (program {program}); the host's are not, and a kernel up to 6.19 \
                         would run it where it must not sleep. Define it with BPF_STRUCT_OPS, not \
                         BPF_STRUCT_OPS_SLEEPABLE"
                    ),
                );
            }
        }
        for (member, value) in numbers {
            if let Some((refused, message)) = number(member, *value) {
                add(refused, message);
            }
        }
    }
    for program in programs.iter().filter(|p| p.autoload && p.name != SCX_PROBE) {
        let (name, section) = (&program.name, &program.section);
        match program.kind {
            libbpf_sys::BPF_PROG_TYPE_SYSCALL => {}
            // Where the policy has its own, that is the obstacle.
            libbpf_sys::BPF_PROG_TYPE_STRUCT_OPS if OWN_DIRECT.iter().any(|(_, own)| own == name) => {}
            libbpf_sys::BPF_PROG_TYPE_STRUCT_OPS => {
                if !ops.values().any(|used| used == name) {
                    add(
                        true,
                        format!(
                            "the program {name} belongs to no op, and the kernel does not load such a program. Name \
                             it in SCXU_POLICY_DEFINE, or remove it"
                        ),
                    );
                }
            }
            _ => add(
                true,
                format!(
                    "the program {name} (SEC(\"{section}\")) would never run, because nothing attaches it. Move its \
                     work into an op, or load and attach it from an object of its own"
                ),
            ),
        }
    }
    found.sort_by_key(|o| !o.refused);
    found
}

fn own_init_or_exit(op: &str) -> String {
    let instead = match op {
        "init" => {
            "Declare DSQs with POLICY_QUEUE_FIFO or POLICY_QUEUE_VTIME, start columns with __default(), and do the rest \
             in the first op that needs it"
        }
        _ => "Remove it: the host records why the kernel exits it",
    };
    format!("its own {op} would never be called, because the host has its own {op}. {instead}")
}

/// What is to be said of a number in the policy's `sched_ext_ops`, which is not 0.
fn number(member: &str, value: u64) -> Option<(bool, String)> {
    let set = format!("{member} is {value}");
    Some(match member {
        "dispatch_max_batch" if value > MAX_BATCH => (
            true,
            format!(
                "{set}, the host's is {MAX_BATCH}: the kernel would eject the host when one dispatch inserts more \
                 tasks. Insert at most {MAX_BATCH} in one dispatch, and set {member} to {MAX_BATCH} or less"
            ),
        ),
        "timeout_ms" if value < TIMEOUT_MS => (
            false,
            format!(
                "{set}, which has no effect: the host's is {TIMEOUT_MS}, so the kernel ejects it only when a task \
                 waits for {} s. Remove it",
                TIMEOUT_MS / 1000
            ),
        ),
        "exit_dump_len" | "hotplug_seq" => (
            false,
            format!(
                "{set}, which has no effect: the kernel reads it from the host, which sets none. Remove it"
            ),
        ),
        "sub_cgroup_id" => (
            true,
            format!(
                "{set}, which has no effect: the host schedules the tasks of all cgroups. Remove it, or use --direct"
            ),
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::object::HOST_OBJECT;
    use crate::host::object::HOST_OPS;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let ends = OWN_DIRECT.iter().chain(pairs);
        ends.map(|(op, program)| ((*op).to_string(), (*program).to_string())).collect()
    }

    fn program(name: &str, section: &str, kind: u32) -> Program {
        let (name, section) = (name.to_string(), section.to_string());
        Program { name, sleepable: section.starts_with("struct_ops.s"), kind, autoload: true, section }
    }

    fn op(name: &str) -> Program {
        program(name, "struct_ops/x", libbpf_sys::BPF_PROG_TYPE_STRUCT_OPS)
    }

    /// Whether each is refused, and what it says.
    fn said(ops: &[(&str, &str)], numbers: &[(&str, u64)], programs: &[Program]) -> Vec<(bool, String)> {
        let numbers = numbers.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        let found = find(&map(ops), &numbers, programs, Target::Host);
        found.into_iter().map(|o| (o.refused, o.message)).collect()
    }

    #[test]
    fn the_list_is_that_of_the_host() {
        let host = Policy::new(HOST_OBJECT, "");
        let open = object::open(host.object(), None).unwrap();
        let ops = Ops::read_of_host(&open, &host.btf().unwrap(), HOST_OPS).unwrap();
        let own: BTreeSet<&str> =
            ops.programs.keys().map(String::as_str).filter(|op| !DIRECT_OPS.contains(op)).collect();
        assert_eq!(own, HOSTED.into_iter().collect());
        assert_eq!(ops.numbers["dispatch_max_batch"], MAX_BATCH);
        assert_eq!(ops.numbers["timeout_ms"], TIMEOUT_MS);
    }

    #[test]
    fn an_ordinary_policy_has_none() {
        let programs = [
            op("mine_enqueue"),
            op("policy_direct_init"),
            program("sweep", "syscall", libbpf_sys::BPF_PROG_TYPE_SYSCALL),
            program(SCX_PROBE, "fentry/x", libbpf_sys::BPF_PROG_TYPE_TRACING),
        ];
        let numbers = [("dispatch_max_batch", 64), ("timeout_ms", 30_000)];
        assert_eq!(said(&[("enqueue", "mine_enqueue")], &numbers, &programs), []);
    }

    #[test]
    fn ops_that_the_host_lacks_are_named() {
        let said = said(
            &[("core_sched_before", "a"), ("cpu_release", "b"), ("sub_attach", "c")],
            &[],
            &[op("a"), op("b"), op("c")],
        );
        let refused: Vec<bool> = said.iter().map(|(refused, _)| *refused).collect();
        assert_eq!(refused, [true, true, false]);
        for ((_, message), name) in said.iter().zip(["cpu_release", "sub_attach", "core_sched_before"]) {
            assert!(message.starts_with(&format!("the op {name} has no effect")), "{message}");
        }
    }

    #[test]
    fn own_init_and_exit_say_what_to_do_instead() {
        let said =
            said(&[("init", "mine_init"), ("exit", "mine_exit")], &[], &[op("mine_init"), op("mine_exit")]);
        assert!(said[0].0 && said[0].1.contains("POLICY_QUEUE_FIFO"), "{said:?}");
        assert!(said[1].0 && said[1].1.contains("its own exit"), "{said:?}");
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn numbers_that_only_the_host_has_are_named() {
        let said =
            said(&[], &[("dispatch_max_batch", 65), ("timeout_ms", 29_999), ("exit_dump_len", 1)], &[]);
        let refused: Vec<bool> = said.iter().map(|(refused, _)| *refused).collect();
        assert_eq!(refused, [true, false, false]);
        assert!(said[0].1.starts_with("dispatch_max_batch is 65, the host's is 64"), "{said:?}");
        assert!(
            said.iter().any(|(_, m)| m.starts_with("timeout_ms is 29999, which has no effect")),
            "{said:?}"
        );
    }

    #[test]
    fn programs_that_nothing_attaches_are_refused_with_and_without_the_host() {
        let mut skipped = program("off", "?tp_btf/sched_switch", libbpf_sys::BPF_PROG_TYPE_TRACING);
        skipped.autoload = false;
        let programs = [
            program("counts", "tp_btf/sched_switch", libbpf_sys::BPF_PROG_TYPE_TRACING),
            program("probes", "kprobe/x", libbpf_sys::BPF_PROG_TYPE_KPROBE),
            op("of_no_op"),
            skipped,
        ];
        for target in [Target::Host, Target::Direct] {
            let found = find(&map(&[]), &BTreeMap::new(), &programs, target);
            assert_eq!(found.len(), 3, "{found:?}");
            for (obstacle, name) in found.iter().zip(["counts", "probes", "of_no_op"]) {
                assert!(obstacle.refused && obstacle.message.contains(name), "{obstacle}");
            }
        }
    }

    #[test]
    fn a_sleepable_op_is_refused_in_the_host_alone() {
        let programs = [program("naps", "struct_ops.s/init_task", libbpf_sys::BPF_PROG_TYPE_STRUCT_OPS)];
        let ops = map(&[("init_task", "naps")]);
        let host = find(&ops, &BTreeMap::new(), &programs, Target::Host);
        assert!(host[0].refused && host[0].message.starts_with("the op init_task is sleepable"), "{host:?}");
        assert_eq!(find(&ops, &BTreeMap::new(), &programs, Target::Direct), []);
    }
}

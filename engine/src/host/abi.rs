//! What the host, the policies and user space agree on, byte for byte: the mirror of
//! `bpf/include/scx_upgrade/abi.h`. A test compares the two through the host's own BTF.

use plain::Plain;

/// The number that a policy and a host must share. See `SCX_UPGRADE_ABI`.
pub const ABI: u32 = 8;
/// Version of the records' form, counted apart from [`ABI`]: a reattach keeps the records of a host of another ABI if
/// this is the same. It changes with the header of a record, or with what a stamp means.
pub const RECORDS: u32 = 2;
/// Slots in each of the host's program arrays.
pub const NR_SLOTS: usize = 4;
/// Scopes of state.
pub const NR_SCOPES: usize = 4;
/// Bytes of a task record behind its header.
pub const TASK_DATA: usize = 256;
/// Bytes of a task record behind its data, which are the host's own.
pub const TASK_TAIL: usize = 16;
/// Bytes of a cgroup record behind its header.
pub const CGROUP_DATA: usize = 256;
/// Bytes of a CPU record behind its header.
pub const CPU_DATA: usize = 512;
/// Bytes of the global record behind its header.
pub const GLOBAL_DATA: usize = 4096;
/// Stores that one plan may ask for per record.
pub const MAX_STEPS: usize = 64;
/// Plans that the host keeps for records that missed some.
pub const NR_PLANS: usize = 8;
/// The most bytes that a conversion by a policy's own program takes, and the most that it gives.
pub const MAX_ARG: usize = 64;
/// Families of DSQs of one policy.
pub const MAX_QUEUES: usize = state_migrate::schema::MAX_QUEUES;
/// Families of DSQs of all policies that are loaded.
pub const MAX_ORPHANS: usize = MAX_QUEUES * NR_SLOTS;
/// The largest number of CPUs that there can be.
pub const MAX_CPUS: usize = 8192;
/// `SCX_UPGRADE_LACKS_ENQ_EXITING`
pub const LACKS_ENQ_EXITING: u8 = 1 << 0;
/// `SCX_UPGRADE_LACKS_ENQ_MIGRATION_DISABLED`
pub const LACKS_ENQ_MIGRATION_DISABLED: u8 = 1 << 1;

/// `SCXU_STEP_STORE`: store `value`.
pub const STEP_STORE: u8 = 0;
/// `SCXU_STEP_COPY`: load and store the same bytes.
pub const STEP_COPY: u8 = 1;
/// `SCXU_STEP_CONVERT`: load a number, rescale, clamp and store it.
pub const STEP_CONVERT: u8 = 2;
/// `SCXU_STEP_ARG`: load from the record, store into the arguments of a conversion.
pub const STEP_ARG: u8 = 3;
/// `SCXU_STEP_CALL`: run a conversion of the policy's own.
pub const STEP_CALL: u8 = 4;
/// `SCXU_STEP_RESULT`: load from the arguments, store into the record.
pub const STEP_RESULT: u8 = 5;
/// `SCXU_STEP_FROM_SIGNED`
pub const STEP_FROM_SIGNED: u8 = 1 << 0;
/// `SCXU_STEP_TO_SIGNED`
pub const STEP_TO_SIGNED: u8 = 1 << 1;
/// `SCXU_STEP_TO_BOOL`
pub const STEP_TO_BOOL: u8 = 1 << 2;
/// `SCXU_STEP_AWAY`: a quotient that is not whole goes away from zero.
pub const STEP_AWAY: u8 = 1 << 3;
/// `SCXU_STEP_RESCALE`: `pre`, `mul`, `div` and `add` do something.
pub const STEP_RESCALE: u8 = 1 << 4;

/// One step of a plan, done `count` times. Offsets count from the first byte behind the record's header.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// `STEP_STORE` and so on.
    pub kind: u8,
    /// `STEP_FROM_SIGNED` and so on.
    pub flags: u8,
    /// 1, 2, 4 or 8.
    pub from_size: u8,
    /// 1, 2, 4 or 8.
    pub to_size: u8,
    /// Where it loads first.
    pub from: u16,
    /// Where it stores first.
    pub to: u16,
    /// How often it is done.
    pub count: u16,
    /// By how much `from` grows each time.
    pub from_stride: u16,
    /// By how much `to` grows each time.
    pub to_stride: u16,
    /// Which of the policy's conversions, for `STEP_CALL`.
    pub conversion: u16,
    /// What `STEP_STORE` stores, in the low `to_size` bytes.
    pub value: u64,
    /// Added first.
    pub pre: i64,
    /// Multiplied by, of a magnitude of at most 2^31.
    pub mul: i64,
    /// Divided by, 1 to 2^31.
    pub div: i64,
    /// Added last.
    pub add: i64,
}

/// A plan as the host applies it to the records of one scope.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many of `steps` count, without the call steps.
    pub nr_steps: u32,
    /// How many call steps stand behind them.
    pub nr_call_steps: u32,
    /// Load number of the policy that the calls are of; 0 if there are none.
    pub caller: u64,
    /// The steps.
    pub steps: [Step; MAX_STEPS],
}

/// A family of DSQs: `base | 0` to `base | (members - 1)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DsqGroup {
    /// The id of its first member; 0 ends a list.
    pub base: u64,
    /// How many it has.
    pub members: u32,
    /// 1: as many as `HostData::cgroup_members` says, which grows.
    pub per_cgroup: u32,
}

/// Why the kernel last took the host off.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExitRecord {
    /// `enum scx_exit_kind`, 0 while the host runs.
    pub kind: u64,
    /// The exit code that came with it.
    pub code: i64,
    /// NUL-terminated.
    pub reason: [u8; 128],
    /// NUL-terminated.
    pub msg: [u8; 1024],
}

/// `struct scxu_host`. Never formed as a reference over the shared mapping; see `host/memory.rs`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct HostData {
    /// The control word, see [`Active`].
    pub active: u64,
    /// `LACKS_*` of the policy in each slot.
    pub lacks: [u8; NR_SLOTS],
    /// [`ABI`] of the host that runs.
    pub abi: u32,
    /// What entering an op adds to `current->migration_disabled`.
    pub prolog: u32,
    /// How many of `orphans` count.
    pub nr_orphans: u32,
    /// Members of all of them together.
    pub orphan_members: u32,
    /// 0, but the verifier does not know.
    pub zero: u32,
    /// The lower half of the control word whose commit the hand-over is for; 0 for none.
    pub handover_to: u32,
    /// The generation that is complete.
    pub closed: u32,
    /// Set around a reattach: tasks that are enabled get back the `dsq_vtime` that they had.
    pub restore_vtime: u32,
    /// Another one for each attach: what policies add to the generation. The host's own.
    pub run_base: u32,
    /// Fills the first cache line.
    pub reserved: [u32; 4],
    /// DSQs with tasks of an earlier policy's, which the running one does not name: the host serves them.
    pub orphans: [DsqGroup; MAX_ORPHANS],
    /// DSQs that the host's init creates.
    pub boot_queues: [DsqGroup; MAX_QUEUES],
    /// All DSQs that there are, or are about to be made.
    pub queues: [DsqGroup; MAX_ORPHANS],
    /// The per-cgroup families that stand, by base; 0 is a hole. The host's own.
    pub cgroup_dsq_groups: [u64; MAX_ORPHANS],
    /// How many members each per-cgroup family has. The host's own.
    pub cgroup_members: u32,
    /// Who changes the two above. The host's own.
    pub cgroup_lock: u32,
    /// Numbers of cgroups that are not free. The host's own.
    pub cgroup_numbers: u32,
    /// Tasks that left orphans by the host's dispatch or its timer.
    pub orphans_served: u32,
    /// What a policy says of itself: its generation in the upper half, its reason in the lower.
    pub unhealthy: u64,
    /// CPUs that there can be.
    pub nr_cpus: u32,
    /// LLCs.
    pub nr_llcs: u32,
    /// The LLC that each CPU is at, counted from 0.
    pub llc_of_cpu: [u16; MAX_CPUS],
    /// The first CPU of each CPU's core.
    pub core_of_cpu: [u16; MAX_CPUS],
    /// The next CPU of the same core; of the last the first.
    pub next_sibling: [u16; MAX_CPUS],
    /// What a new task record starts as, header left out.
    pub task_image: [u8; TASK_DATA],
    /// The same for cgroups,
    pub cgroup_image: [u8; CGROUP_DATA],
    /// CPUs,
    pub cpu_image: [u8; CPU_DATA],
    /// and the global record.
    pub global_image: [u8; GLOBAL_DATA],
    /// By slot: while it is active, plans that call the policy of this load number wait for it.
    pub callers: [u64; NR_SLOTS],
    /// The task table of all tasks.
    pub task_table: TaskTableState,
    /// By scope; the plan of epoch e stands at `e % NR_PLANS`.
    pub plans: [[Plan; NR_PLANS]; NR_SCOPES],
    /// Why the kernel last took the host off.
    pub exit: ExitRecord,
}

/// `struct scxu_sdk`, the read-only data that a policy gets before it is loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SdkData {
    /// [`ABI`] that the policy was built for.
    pub abi: u32,
    /// Zero.
    pub reserved: u32,
    /// Counts loads into one host, from 1.
    pub load: u64,
    /// DSQs for init when attached without the host.
    pub direct_queues: [DsqGroup; MAX_QUEUES],
}

/// `struct scxu_task_table_state`: what is to be known of the task table, which has a row for each task.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskTableState {
    /// The sweep under way in the upper half, and in the lower the first row that nobody has taken in it.
    pub sweep: u64,
    /// Rows that have been given, of which some may be free again.
    pub rows: u32,
    /// Tasks that have none, and that no op will give one.
    pub untracked: u32,
    /// 1 from when the kernel took the host off, and the rows with it, until it is attached again.
    pub detached: u32,
    /// Fills the cache line.
    pub reserved: [u32; 11],
}

/// Arguments of a sweep.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SweepArgs {
    /// Tasks, cgroups or CPUs seen.
    pub visited: u64,
    /// Records brought up to date.
    pub applied: u64,
    /// Those for which no record could be made.
    pub missing: u64,
    /// Those that are left to another sweep.
    pub remaining: u64,
    /// Which sweep of tasks this is a part of.
    pub sweep: u32,
    /// After so many tasks it is enough for once.
    pub max_records: u32,
    /// 0 if there is no more to do, 1 if it was enough for once.
    pub has_more: u32,
    /// It is in a class above sched_ext, and has the policy say who runs in its pauses.
    pub yields: u32,
}

/// Arguments of the host's programs on one family of DSQs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueArgs {
    /// See [`DsqGroup`].
    pub base: u64,
    /// See [`DsqGroup`].
    pub members: u32,
    /// See [`DsqGroup`].
    pub per_cgroup: u32,
    /// Members that exist.
    pub existing: u64,
    /// Tasks on them.
    pub queued: u64,
    /// Tasks handed over.
    pub moved: u64,
}

// SAFETY: each is repr(C), has no padding, and any bit pattern is a value.
unsafe impl Plain for SweepArgs {}
// SAFETY: as above.
unsafe impl Plain for QueueArgs {}
// SAFETY: as above.
unsafe impl Plain for DsqGroup {}
// SAFETY: as above.
unsafe impl Plain for SdkData {}
// SAFETY: as above.
unsafe impl Plain for Plan {}
// SAFETY: as above.
unsafe impl Plain for ExitRecord {}
// SAFETY: as above; its padding at the end is never read as a field.
unsafe impl Plain for HostData {}

/// The control word, taken apart. The whole of it changes with one aligned store: the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Which entry of the program arrays runs.
    pub slot: u8,
    /// Counts up with every commit, modulo 2^24.
    pub generation: u32,
    /// The latest plan that every record must have seen.
    pub epoch: u32,
}

impl Active {
    /// As the bytes that BPF reads (bit-fields from the low end: the ABI is little-endian only).
    pub fn to_word(self) -> u64 {
        u64::from(self.slot) | u64::from(self.generation & 0xff_ffff) << 8 | u64::from(self.epoch) << 32
    }

    /// The inverse of [`Active::to_word`].
    pub fn from_word(word: u64) -> Self {
        Active { slot: word as u8, generation: (word >> 8) as u32 & 0xff_ffff, epoch: (word >> 32) as u32 }
    }
}

const _: () =
    assert!(cfg!(target_endian = "little"), "the control word is laid out for little-endian machines");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_word_survives_a_round_trip() {
        let active = Active { slot: 3, generation: 0xff_fffe, epoch: u32::MAX };
        assert_eq!(Active::from_word(active.to_word()), active);
        assert_eq!(Active { slot: 1, generation: 2, epoch: 3 }.to_word(), 0x0000_0003_0000_0201);
    }
}

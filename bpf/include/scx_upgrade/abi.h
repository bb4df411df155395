/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ABI between the host, the policies and user space. `engine/src/host/abi.rs` mirrors this file, and a test compares the two. Any
 * change to a number or a struct here changes SCX_UPGRADE_ABI. A host refuses a policy that was built for another number.
 */
#ifndef __SCX_UPGRADE_ABI_H
#define __SCX_UPGRADE_ABI_H

#define SCX_UPGRADE_ABI		8

/*
 * A BPF object may have more than one source, and the linker takes one definition of each map, global variable and global
 * function. One source includes the headers and has them. Each other source includes declare.bpf.h, which sets
 * SCX_UPGRADE_DECLARE, and has declarations only.
 */
#ifdef SCX_UPGRADE_DECLARE
#define SCXU_GLOBAL	extern
#else
#define SCXU_GLOBAL
#endif

/* Slots in each of the host's program arrays: the running policy, and up to three for a rollback. */
#define SCX_UPGRADE_NR_SLOTS	4

/* The bytes of state in a record of each scope, without the header. Powers of two, see scxu_store(). */
#define SCX_UPGRADE_TASK_DATA	256
#define SCX_UPGRADE_CGROUP_DATA	256
#define SCX_UPGRADE_CPU_DATA	512
#define SCX_UPGRADE_GLOBAL_DATA	4096

/* The scopes, as indices of scxu_host.plans. */
enum scxu_scope {
	SCXU_SCOPE_TASK,
	SCXU_SCOPE_CGROUP,
	SCXU_SCOPE_CPU,
	SCXU_SCOPE_GLOBAL,
	SCXU_NR_SCOPES,
};

/* The most steps in a plan, and how many of the latest plans the host keeps for records that have missed some. */
#define SCX_UPGRADE_MAX_STEPS	64
#define SCX_UPGRADE_NR_PLANS	8

/* The most bytes of the argument, and of the result, of a conversion by a policy's own program. A power of two. */
#define SCX_UPGRADE_MAX_ARG	64

/* The most DSQ groups in one policy, and in all loaded policies together. */
#define SCX_UPGRADE_MAX_QUEUES	16
#define SCX_UPGRADE_MAX_ORPHANS	64

/* The most DSQs without an owner that one dispatch visits: see host_dispatch(). */
#define SCX_UPGRADE_ORPHANS_A_TIME 256

/* The most CPUs: NR_CPUS of a kernel with CONFIG_MAXSMP. A power of two. */
#define SCX_UPGRADE_MAX_CPUS	8192

/*
 * The most cgroups with an index, and so with DSQs of their own. Any further cgroup shares the DSQs of its nearest ancestor.
 * A power of two. The host keeps about SCX_UPGRADE_SPARE_CGROUPS more DSQs in each per-cgroup group than there are cgroups.
 */
#define SCX_UPGRADE_MAX_CGROUPS	16384
#define SCX_UPGRADE_SPARE_CGROUPS 64

#define SCX_UPGRADE_EXIT_REASON	128
#define SCX_UPGRADE_EXIT_MSG	1024

/*
 * The control word. User space writes all eight bytes with one aligned store, and that store is the commit. An op reads the
 * slot as a byte or the epoch as a word, and never bases one decision on both.
 */
struct scxu_active {
	u32	slot : 8;		/* which entry of the program arrays runs */
	u32	generation : 24;	/* counts up with every commit */
	u32	epoch;			/* the latest plan that every record must have seen; never 0 */
} __attribute__((aligned(8)));

enum scxu_step_kind {
	SCXU_STEP_STORE,			/* store `value` */
	SCXU_STEP_COPY,			/* load and store the same bytes */
	SCXU_STEP_CONVERT,		/* load a number, (v + pre) * mul / div + add, clamp it, store it */
	/* Only among a plan's call steps: */
	SCXU_STEP_ARG,			/* load from the record, store into the arguments */
	SCXU_STEP_CALL,			/* run a conversion of the policy's own on the arguments */
	SCXU_STEP_RESULT,		/* load from the arguments, store into the record */
};

#define SCXU_STEP_FROM_SIGNED	(1 << 0)
#define SCXU_STEP_TO_SIGNED	(1 << 1)
#define SCXU_STEP_TO_BOOL	(1 << 2)	/* 0 or 1, nothing else */
#define SCXU_STEP_AWAY		(1 << 3)	/* a quotient that is not whole goes away from zero, not toward it */
#define SCXU_STEP_RESCALE	(1 << 4)	/* pre, mul, div and add do something */

/*
 * One step of a plan, executed `count` times. Offsets count from the first byte behind the record's header. Loads and stores
 * have exactly the given size, 1, 2, 4 or 8, and are aligned to it. state-migrate/src/step defines the meaning of a step.
 *
 * The arguments of a conversion are the old value, at byte 0, and the new value, at byte SCX_UPGRADE_MAX_ARG.
 */
struct scxu_step {
	u8	kind;			/* enum scxu_step_kind */
	u8	flags;			/* SCXU_STEP_* */
	u8	from_size;
	u8	to_size;
	u16	from;
	u16	to;
	u16	count;
	u16	from_stride;
	u16	to_stride;
	u16	conversion;		/* SCXU_STEP_CALL: index into the policy's SCXU_CONVERSIONS() */
	u64	value;
	s64	pre;
	s64	mul;			/* of a magnitude of at most 2^31 */
	s64	div;			/* 1 to 2^31 */
	s64	add;
};

/*
 * The call steps follow the other steps. Only the policy of load number `caller` can execute them, because its object has the
 * conversions. See scxu_must_wait().
 */
struct scxu_plan {
	u32	nr_steps;		/* without the call steps */
	u32	nr_call_steps;
	u64	caller;			/* 0 if there are no call steps */
	struct scxu_step steps[SCX_UPGRADE_MAX_STEPS];
};

/*
 * Why the kernel last disabled the host, written by the host's exit op. `kind` is enum scx_exit_kind, 0 while the host runs.
 */
struct scxu_exit_record {
	u64	kind;
	s64	code;
	char	reason[SCX_UPGRADE_EXIT_REASON];
	char	msg[SCX_UPGRADE_EXIT_MSG];
};

/*
 * A DSQ group: the DSQs with ids `base | 0` to `base | (members - 1)`. The upper half of an id is the group's number, which
 * is never reused while the host lives. The lower half is the member. Bits 63 and 62 stay 0, because they have a meaning in
 * the kernel.
 */
struct scxu_dsq_group {
	u64	base;			/* 0 ends a list */
	u32	members;
	u32	per_cgroup;		/* if set, the group has scxu_host.cgroup_members members, which grows */
};

/* Flags of struct sched_ext_ops that the host sets and the policy of a slot does not. See host_enqueue(). */
#define SCX_UPGRADE_LACKS_ENQ_EXITING			(1 << 0)
#define SCX_UPGRADE_LACKS_ENQ_MIGRATION_DISABLED	(1 << 1)

/* The state of the task table: see task_table.bpf.h. */
struct scxu_task_table_state {
	u64	sweep;			/* number of the current sweep << 32 | the first row not yet taken */
	u32	rows;			/* rows in use so far; some may be free again */
	u32	untracked;		/* tasks without a row, to which no op will give one */
	u32	detached;		/* the kernel has detached the host, and removed the rows; 0 after an attach */
	u32	reserved[11];
} __attribute__((aligned(64)));

/*
 * The memory that user space and BPF share. Each op reads the first cache line. `active`, `abi` and `closed` keep their
 * offsets in every version of the ABI, so that every version of the tools can tell which host runs, and which generation.
 */
struct scxu_host {
	struct scxu_active active;
	u8	lacks[SCX_UPGRADE_NR_SLOTS];
	u32	abi;
	u32	prolog;			/* what a BPF program adds to current->migration_disabled: 0 or 1 */
	u32	nr_orphans;		/* see host_dispatch() */
	u32	orphan_members;		/* sum of the members of all orphans */
	u32	zero;			/* always 0, but unknown to the verifier: see scxu_zero() */
	u32	handover_to;		/* lower half of the control word to wait for, or 0: bpf/host/handover.bpf.h */
	u32	closed;			/* the last generation that is complete in the registry */
	u32	restore_vtime;		/* set around a reattach, see host_enable() */
	u32	run_base;		/* differs in each attach: see scxu_run_id() */
	u32	reserved[4];
	struct scxu_dsq_group orphans[SCX_UPGRADE_MAX_ORPHANS];
	struct scxu_dsq_group boot_queues[SCX_UPGRADE_MAX_QUEUES];
	struct scxu_dsq_group queues[SCX_UPGRADE_MAX_ORPHANS];	/* all existing groups, and those about to be created */
	/*
	 * The bases of the per-cgroup DSQ groups; 0 is a free entry. Only the holder of cgroup_lock changes the next three.
	 */
	u64	cgroup_dsq_groups[SCX_UPGRADE_MAX_ORPHANS];
	u32	cgroup_members;		/* members of each per-cgroup group; every cgroup's index is below */
	u32	cgroup_lock;
	u32	cgroup_numbers;		/* indices that are not free: a cgroup has or had them */
	u32	orphans_served;		/* tasks that the host moved from orphans; not in the first cache line */
	u64	unhealthy;		/* generation << 32 | reason, from the policy itself: lib/health.bpf.h */
	/*
	 * The topology, set before the host is attached: the number of possible CPUs, and for each CPU its LLC, counted from
	 * 0, the first CPU of its core, and the next SMT sibling in a ring.
	 */
	u32	nr_cpus;
	u32	nr_llcs;
	u16	llc_of_cpu[SCX_UPGRADE_MAX_CPUS];
	u16	core_of_cpu[SCX_UPGRADE_MAX_CPUS];
	u16	next_sibling[SCX_UPGRADE_MAX_CPUS];
	/* The initial data of a new record of each scope. */
	u64	task_image[SCX_UPGRADE_TASK_DATA / 8];
	u64	cgroup_image[SCX_UPGRADE_CGROUP_DATA / 8];
	u64	cpu_image[SCX_UPGRADE_CPU_DATA / 8];
	u64	global_image[SCX_UPGRADE_GLOBAL_DATA / 8];
	/*
	 * By slot: the load number of its policy. While the slot is active, plans that call conversions of this policy wait
	 * for it.
	 */
	u64	callers[SCX_UPGRADE_NR_SLOTS];
	/* In a cache line of its own, because the workers of a sweep contend for it. */
	struct scxu_task_table_state task_table;
	/* The plan of epoch e is at index e % SCX_UPGRADE_NR_PLANS. */
	struct scxu_plan plans[SCXU_NR_SCOPES][SCX_UPGRADE_NR_PLANS];
	struct scxu_exit_record exit;
} __attribute__((aligned(64)));

/* Arguments of the host's SYSCALL programs. in: user space sets it; out: the program sets it. */
struct scxu_sweep_args {
	u64	visited;		/* out: tasks, cgroups or CPUs seen */
	u64	applied;		/* out: records brought up to date */
	u64	missing;		/* out: tasks, cgroups or CPUs for which there was no memory for a record */
	u64	remaining;		/* out: stale records that this program left as they are */
	u32	sweep;			/* in: number of the sweep of tasks that this call is part of */
	u32	max_records;		/* in: return after so many tasks */
	u32	has_more;		/* out: 1 if it returned before all tasks were done */
	u32	yields;			/* in: the caller is in a class above sched_ext; see scxu_sweep_yield() */
};

struct scxu_queue_args {
	u64	base;
	u32	members;		/* in; out: the group's members, if it is per cgroup */
	u32	per_cgroup;
	u64	existing;		/* out: members that exist */
	u64	queued;			/* out: tasks on them at the end */
	u64	moved;			/* out: tasks handed over */
};

/* Set by the SDK before a policy is loaded. */
struct scxu_sdk {
	u32	abi;
	u32	reserved;
	u64	load;			/* counts loads into one host, from 1 */
	struct scxu_dsq_group direct_queues[SCX_UPGRADE_MAX_QUEUES];	/* for init when attached without the host */
};

#endif /* __SCX_UPGRADE_ABI_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the host, the policies and user space agree on, byte for byte. `sdk/src/abi.rs` mirrors this file; a test
 * compares the two. Any change to a number or a struct here changes SCX_UPGRADE_ABI, and a policy built for one
 * number is refused by a host of another.
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

/* Slots in each of the host's program arrays: the running policy and up to three to go back to. */
#define SCX_UPGRADE_NR_SLOTS	4

/* Bytes of state behind the header of a record of each scope. Powers of two, see scxu_store(). */
#define SCX_UPGRADE_TASK_DATA	256
#define SCX_UPGRADE_CGROUP_DATA	256
#define SCX_UPGRADE_CPU_DATA	512
#define SCX_UPGRADE_GLOBAL_DATA	4096

/* The scopes, as index of scxu_host.plans. */
enum scxu_scope {
	SCXU_SCOPE_TASK,
	SCXU_SCOPE_CGROUP,
	SCXU_SCOPE_CPU,
	SCXU_SCOPE_GLOBAL,
	SCXU_NR_SCOPES,
};

/* Stores that one plan may ask for per record, and how many of the latest plans are kept for stragglers. */
#define SCX_UPGRADE_MAX_STEPS	64
#define SCX_UPGRADE_NR_PLANS	8

/* The most bytes that a conversion by a policy's own program may take, and the most that it may give. A power of two. */
#define SCX_UPGRADE_MAX_ARG	64

/* DSQ groups that one policy may name, and all that are loaded together. */
#define SCX_UPGRADE_MAX_QUEUES	16
#define SCX_UPGRADE_MAX_ORPHANS	64

/* Members of queues that no policy names any more which one dispatch looks at: see host_dispatch(). */
#define SCX_UPGRADE_ORPHANS_A_TIME 256

/* The largest number of CPUs that there can be: as many as a kernel is built for. A power of two. */
#define SCX_UPGRADE_MAX_CPUS	8192

/*
 * cgroups that can have a number, and with it queues of their own; those beyond share their nearest ancestor's. A
 * power of two. Numbers are ahead of what is needed by at least the second figure, for cgroups yet to come.
 */
#define SCX_UPGRADE_MAX_CGROUPS	16384
#define SCX_UPGRADE_SPARE_CGROUPS 64

#define SCX_UPGRADE_EXIT_REASON	128
#define SCX_UPGRADE_EXIT_MSG	1024

/*
 * The control word. User space writes all eight bytes with one aligned store: that store is the commit. Ops read
 * the slot as a byte and the epoch as a word, never both in one decision.
 */
struct scxu_active {
	u32	slot : 8;		/* which entry of the program arrays runs */
	u32	generation : 24;	/* counts up with every commit */
	u32	epoch;			/* the latest plan that every record must have seen; 0 is no record's */
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
 * One step of a plan, done `count` times. Offsets count from the first byte behind the record's header; loads and
 * stores have exactly their size, 1, 2, 4 or 8, and are aligned to it. The meaning is that of state-migrate/src/step.
 *
 * The arguments of a conversion are the old value, from byte 0, and the new one, from byte SCX_UPGRADE_MAX_ARG.
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
	u16	conversion;		/* which of the policy's SCXU_CONVERSIONS(), for SCXU_STEP_CALL */
	u64	value;
	s64	pre;
	s64	mul;			/* of a magnitude of at most 2^31 */
	s64	div;			/* 1 to 2^31 */
	s64	add;
};

/*
 * The call steps stand behind the others, and only the policy of load number `caller` can do them: it is the one whose
 * object has the programs. See scxu_must_wait().
 */
struct scxu_plan {
	u32	nr_steps;		/* without the call steps */
	u32	nr_call_steps;
	u64	caller;			/* 0 if there are no call steps */
	struct scxu_step steps[SCX_UPGRADE_MAX_STEPS];
};

/* Why the kernel last took the host off, written by its exit op. `kind` is enum scx_exit_kind, 0 while it runs. */
struct scxu_exit_record {
	u64	kind;
	s64	code;
	char	reason[SCX_UPGRADE_EXIT_REASON];
	char	msg[SCX_UPGRADE_EXIT_MSG];
};

/*
 * A DSQ group: `base | 0` to `base | (members - 1)`. The upper half of an id is the group, never given twice
 * while the host lives; the lower half counts its members. Bits 63 and 62, which mean something to the kernel, stay 0.
 */
struct scxu_dsq_group {
	u64	base;			/* 0 ends a list */
	u32	members;
	u32	per_cgroup;		/* then the number of members is scxu_host.cgroup_members, which grows */
};

/* A flag of struct sched_ext_ops that the host sets and a policy lacks, bit by slot. See host_enqueue(). */
#define SCX_UPGRADE_LACKS_ENQ_EXITING			(1 << 0)
#define SCX_UPGRADE_LACKS_ENQ_MIGRATION_DISABLED	(1 << 1)

/* What is to be known of the task table, which has a row for each task: see task_table.bpf.h. */
struct scxu_task_table_state {
	u64	sweep;			/* the sweep under way << 32 | the first row that nobody has taken in it */
	u32	rows;			/* that have been given, of which some may be free again */
	u32	untracked;		/* tasks that have none, and that no op will give one */
	u32	detached;		/* the kernel has taken the host off, and the rows with it; 0 from the next attach on */
	u32	reserved[11];
} __attribute__((aligned(64)));

/*
 * Everything that user space and BPF share about the host. The first cache line is what each op reads. `active`, `abi`
 * and `closed` keep their places in every version, so that each can tell which one runs, and what in it.
 */
struct scxu_host {
	struct scxu_active active;
	u8	lacks[SCX_UPGRADE_NR_SLOTS];
	u32	abi;
	u32	prolog;			/* what entering an op adds to current->migration_disabled: 0 or 1 */
	u32	nr_orphans;		/* see host_dispatch() */
	u32	orphan_members;		/* of all of them together */
	u32	zero;			/* always 0, which the verifier does not know: see scxu_zero() */
	u32	handover_to;		/* lower half of the control word that the hand-over is for, 0 for none: bpf/host/handover.bpf.h */
	u32	closed;			/* the generation whose books are closed, see sdk/src/registry.rs */
	u32	restore_vtime;		/* set around a reattach, see host_enable() */
	u32	run_base;		/* another one for each attach: see scxu_run_id() */
	u32	reserved[4];
	struct scxu_dsq_group orphans[SCX_UPGRADE_MAX_ORPHANS];
	struct scxu_dsq_group boot_queues[SCX_UPGRADE_MAX_QUEUES];
	struct scxu_dsq_group queues[SCX_UPGRADE_MAX_ORPHANS];	/* all that there are, or are about to be made */
	/* The per-cgroup DSQ groups that exist; 0 is a hole. Only who holds the lock changes these three. */
	u64	cgroup_dsq_groups[SCX_UPGRADE_MAX_ORPHANS];
	u32	cgroup_members;		/* each of them has; numbers of cgroups are below it */
	u32	cgroup_lock;
	u32	cgroup_numbers;		/* not free: cgroups have them, or they rest */
	u32	orphans_served;		/* tasks that left orphans by the host; not beside what each op reads */
	u64	unhealthy;		/* what a policy says of itself: its generation << 32 | its reason, see lib/health.bpf.h */
	/*
	 * The machine, set before the host is attached: possible CPUs, and of each the LLC that it is at, counted from 0, the
	 * first CPU of its core, and the next of the core's, of the last the first again.
	 */
	u32	nr_cpus;
	u32	nr_llcs;
	u16	llc_of_cpu[SCX_UPGRADE_MAX_CPUS];
	u16	core_of_cpu[SCX_UPGRADE_MAX_CPUS];
	u16	next_sibling[SCX_UPGRADE_MAX_CPUS];
	/* What a new record of each scope starts as. */
	u64	task_image[SCX_UPGRADE_TASK_DATA / 8];
	u64	cgroup_image[SCX_UPGRADE_CGROUP_DATA / 8];
	u64	cpu_image[SCX_UPGRADE_CPU_DATA / 8];
	u64	global_image[SCX_UPGRADE_GLOBAL_DATA / 8];
	/* By slot: while it is active, plans that call conversions of the policy of this load number wait for it. */
	u64	callers[SCX_UPGRADE_NR_SLOTS];
	/* The task table, see task_table.bpf.h. A cache line to itself, since those who sweep contend for the first. */
	struct scxu_task_table_state task_table;
	/* The plan of epoch e stands at e % NR_PLANS. */
	struct scxu_plan plans[SCXU_NR_SCOPES][SCX_UPGRADE_NR_PLANS];
	struct scxu_exit_record exit;
} __attribute__((aligned(64)));

/* Arguments of the host's SYSCALL programs. */
struct scxu_sweep_args {
	u64	visited;		/* out: tasks, cgroups or CPUs seen */
	u64	applied;		/* out: records brought up to date */
	u64	missing;		/* out: those for which no record could be made */
	u64	remaining;		/* out: those that are left to another sweep */
	u32	sweep;			/* in: which sweep of tasks this is a part of */
	u32	max_records;		/* in: after so many tasks it is enough for once */
	u32	has_more;		/* out: 0 if there is no more to do, 1 if it was enough for once */
	u32	yields;			/* in: it is in a class above sched_ext, so others run in its pauses only */
};

struct scxu_queue_args {
	u64	base;
	u32	members;		/* in; out: as many as the group has, if it is per cgroup */
	u32	per_cgroup;
	u64	existing;		/* out: members that exist */
	u64	queued;			/* out: tasks on them when it ended */
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

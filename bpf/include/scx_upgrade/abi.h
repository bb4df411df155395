/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the host, the policies and user space agree on, byte for byte. `sdk/src/abi.rs` mirrors this file; a test
 * compares the two. Any change to a number or a struct here changes SCX_UPGRADE_ABI, and a policy built for one
 * number is refused by a host of another.
 */
#ifndef __SCX_UPGRADE_ABI_H
#define __SCX_UPGRADE_ABI_H

#define SCX_UPGRADE_ABI		2

/* Slots in each of the host's program arrays: the running policy and up to three to go back to. */
#define SCX_UPGRADE_NR_SLOTS	4

/* Bytes of state behind the header of a record of each scope. Powers of two, see scx_store(). */
#define SCX_UPGRADE_TASK_DATA	256
#define SCX_UPGRADE_CGROUP_DATA	256
#define SCX_UPGRADE_CPU_DATA	512
#define SCX_UPGRADE_GLOBAL_DATA	4096

/* The scopes, as index of scx_host.plans. */
enum scx_scope {
	SCX_SCOPE_TASK,
	SCX_SCOPE_CGROUP,
	SCX_SCOPE_CPU,
	SCX_SCOPE_GLOBAL,
	SCX_NR_SCOPES,
};

/* Stores that one plan may ask for per record, and how many of the latest plans are kept for stragglers. */
#define SCX_UPGRADE_MAX_STEPS	64
#define SCX_UPGRADE_NR_PLANS	8

/* DSQs that the host's init creates before the first task is enqueued. */
#define SCX_UPGRADE_MAX_QUEUES	16

/* DSQs that no policy but the running one's predecessors names: as many as all slots can have. */
#define SCX_UPGRADE_MAX_ORPHANS	64

#define SCX_UPGRADE_EXIT_REASON	128
#define SCX_UPGRADE_EXIT_MSG	1024

/*
 * The control word. User space writes all eight bytes with one aligned store: that store is the commit. Ops read
 * the slot as a byte and the epoch as a word, never both in one decision.
 */
struct scx_active {
	u32	slot : 8;		/* which entry of the program arrays runs */
	u32	generation : 24;	/* counts up with every commit */
	u32	epoch;			/* the latest plan that every record must have seen; 0 is no record's */
} __attribute__((aligned(8)));

enum scx_step_kind {
	SCX_STEP_STORE,			/* store `value` */
	SCX_STEP_COPY,			/* load and store the same bytes */
	SCX_STEP_CONVERT,		/* load a number, (v + pre) * mul / div + add, clamp it, store it */
};

#define SCX_STEP_FROM_SIGNED	(1 << 0)
#define SCX_STEP_TO_SIGNED	(1 << 1)
#define SCX_STEP_TO_BOOL	(1 << 2)	/* 0 or 1, nothing else */
#define SCX_STEP_AWAY		(1 << 3)	/* a quotient that is not whole goes away from zero, not toward it */

/*
 * One step of a plan, done `count` times. Offsets count from the first byte behind the record's header; loads and
 * stores have exactly their size, 1, 2, 4 or 8, and are aligned to it. The meaning is that of state-migrate/src/step.
 */
struct scx_step {
	u8	kind;			/* enum scx_step_kind */
	u8	flags;			/* SCX_STEP_* */
	u8	from_size;
	u8	to_size;
	u16	from;
	u16	to;
	u16	count;
	u16	from_stride;
	u16	to_stride;
	u16	reserved;
	u64	value;
	s64	pre;
	s64	mul;			/* of a magnitude of at most 2^31 */
	s64	div;			/* 1 to 2^31 */
	s64	add;
};

struct scx_plan {
	u32	nr_steps;
	u32	reserved;
	struct scx_step steps[SCX_UPGRADE_MAX_STEPS];
};

/* Why the kernel last took the host off, written by its exit op. `kind` is enum scx_exit_kind, 0 while it runs. */
struct scx_exit_record {
	u64	kind;
	s64	code;
	char	reason[SCX_UPGRADE_EXIT_REASON];
	char	msg[SCX_UPGRADE_EXIT_MSG];
};

/* A flag of struct sched_ext_ops that the host sets and a policy lacks, bit by slot. See host_enqueue(). */
#define SCX_UPGRADE_LACKS_ENQ_EXITING			(1 << 0)
#define SCX_UPGRADE_LACKS_ENQ_MIGRATION_DISABLED	(1 << 1)

/*
 * Everything that user space and BPF share about the host. The first cache line is what each op reads. `active` and
 * `abi` keep their places in every version, so that each can tell which one runs.
 */
struct scx_host {
	struct scx_active active;
	u8	lacks[SCX_UPGRADE_NR_SLOTS];
	u32	abi;
	u32	prolog;			/* what entering an op adds to current->migration_disabled: 0 or 1 */
	u32	nr_orphans;		/* see host_dispatch() */
	u32	restore_vtime;		/* set around a reattach, see host_enable() */
	u32	reserved[9];
	u64	orphans[SCX_UPGRADE_MAX_ORPHANS];	/* ids */
	u64	boot_queues[SCX_UPGRADE_MAX_QUEUES];	/* ids, 0 ends the list */
	/* What a new record of each scope starts as. */
	u64	task_image[SCX_UPGRADE_TASK_DATA / 8];
	u64	cgroup_image[SCX_UPGRADE_CGROUP_DATA / 8];
	u64	cpu_image[SCX_UPGRADE_CPU_DATA / 8];
	u64	global_image[SCX_UPGRADE_GLOBAL_DATA / 8];
	/* The plan of epoch e stands at e % NR_PLANS. */
	struct scx_plan plans[SCX_NR_SCOPES][SCX_UPGRADE_NR_PLANS];
	struct scx_exit_record exit;
} __attribute__((aligned(64)));

/* Arguments of the host's SYSCALL programs. */
struct scx_sweep_args {
	u64	visited;		/* out: tasks, cgroups or CPUs seen */
	u64	applied;		/* out: records brought up to date */
	u64	missing;		/* out: those for which no record could be made */
};

struct scx_queue_args {
	u64	id;
	s64	queued;			/* out: tasks still on it */
	u64	moved;			/* out: tasks handed over */
};

/* Set by the SDK before a policy is loaded. */
struct scx_sdk {
	u32	abi;
	u32	reserved;
	u64	direct_queues[SCX_UPGRADE_MAX_QUEUES];	/* for init when attached without the host, 0 ends the list */
};

#endif /* __SCX_UPGRADE_ABI_H */

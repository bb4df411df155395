/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The columns that helpers need, to be put into the structs of state. By their names all policies that use a helper carry
 * to each other what it knows.
 */
#ifndef __SCX_UPGRADE_COLUMNS_BPF_H
#define __SCX_UPGRADE_COLUMNS_BPF_H

/*
 * vtime.bpf.h, for tasks. vtime: 0 is one that no policy with this clock has placed. vtime_lag_ns, which is well-known:
 * how far it was behind the clock when it last stopped.
 */
#define SCXU_VTIME_TASK_COLUMNS	\
	u64	vtime;		\
	s64	vtime_lag_ns

/* vtime.bpf.h, for what has a clock: all (global), or each CPU. */
#define SCXU_VTIME_CLOCK_COLUMNS	\
	u64	vtime_now __default(1099511627776)	/* 2^40 */

/* slice.bpf.h, for tasks. last_run_at_ns, which is well-known: when it last began to run; in which run of the policy. */
#define SCXU_RUN_TASK_COLUMNS			\
	u64	last_run_at_ns __momentary;	\
	u32	last_run_gen __momentary

/*
 * shares.bpf.h, for tasks. share_gen: the run of the policy that it is counted in, if any; share_weight: as what; share: of the
 * whole, as of when scxu_share_of() was last asked.
 */
#define SCXU_SHARES_TASK_COLUMNS		\
	u32	share_gen __momentary;		\
	u32	share_weight __momentary;	\
	u64	share __momentary

/*
 * shares.bpf.h, for cgroups. share_busy: a run of the policy, and the weights of what wants to run in it, in one word;
 * share_weight: as for tasks.
 */
#define SCXU_SHARES_CGROUP_COLUMNS	\
	u64	share_busy __momentary;	\
	u32	share_weight __momentary

/* preempt.bpf.h, for CPUs: how urgent what it runs is, as of which run of the policy. */
#define SCXU_PREEMPT_CPU_COLUMNS		\
	u64	running_rank __momentary;	\
	u32	running_gen __momentary

#endif /* __SCX_UPGRADE_COLUMNS_BPF_H */

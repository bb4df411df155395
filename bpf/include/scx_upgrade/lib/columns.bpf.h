/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The columns that the helpers need. A policy puts them into its structs of state. All policies that use a helper have
 * columns of the same names, so a swap carries the helper's state.
 */
#ifndef __SCX_UPGRADE_COLUMNS_BPF_H
#define __SCX_UPGRADE_COLUMNS_BPF_H

/*
 * vtime.bpf.h, for tasks. vtime: 0 if no policy with this clock has placed the task. vtime_lag_ns, a well-known column: how
 * far the task was behind the clock when it last stopped.
 */
#define SCXU_VTIME_TASK_COLUMNS	\
	u64	vtime;		\
	s64	vtime_lag_ns

/* vtime.bpf.h, for the scope that has the clock: global, or each CPU. */
#define SCXU_VTIME_CLOCK_COLUMNS	\
	u64	vtime_now __default(1099511627776)	/* 2^40 */

/*
 * slice.bpf.h, for tasks. last_run_at_ns, a well-known column: when the task last began to run. last_run_gen: the run of the
 * policy in which it did.
 */
#define SCXU_RUN_TASK_COLUMNS			\
	u64	last_run_at_ns __momentary;	\
	u32	last_run_gen __momentary

/*
 * shares.bpf.h, for tasks. share_gen: the run of the policy in which the task is counted, if any. share_weight: the weight
 * that it is counted with. share: the last result of scxu_share_of().
 */
#define SCXU_SHARES_TASK_COLUMNS		\
	u32	share_gen __momentary;		\
	u32	share_weight __momentary;	\
	u64	share __momentary

/*
 * shares.bpf.h, for cgroups. share_busy: in one word a run of the policy, and the sum of the weights of the runnable tasks
 * and busy children. share_weight: as for tasks.
 */
#define SCXU_SHARES_CGROUP_COLUMNS	\
	u64	share_busy __momentary;	\
	u32	share_weight __momentary

/* preempt.bpf.h, for CPUs: the rank of the running task, and the run of the policy that stored it. */
#define SCXU_PREEMPT_CPU_COLUMNS		\
	u64	running_rank __momentary;	\
	u32	running_gen __momentary

#endif /* __SCX_UPGRADE_COLUMNS_BPF_H */

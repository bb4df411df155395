/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slices, and the time that a task has run.
 *
 *	running:	scxu_run_begin(t)
 *	stopping:	used = scxu_run_ns(t, slice)
 *
 * A task may begin to run under one policy and stop under another. The start time in its record is then the other policy's,
 * or an old one of this policy from before a swap. So a start time from an earlier run of the policy counts for one slice at
 * most. A policy that gives a running task another slice (scxu_vtime_is_first()) charges the task for the last slice first,
 * and calls scxu_run_begin() again.
 */
#ifndef __SCX_UPGRADE_SLICE_BPF_H
#define __SCX_UPGRADE_SLICE_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* The most slices that scxu_run_ns() charges for one run. */
#define SCXU_RUN_SLICES_MAX		4

#define SCXU_NSEC_PER_USEC	1000ULL
#define SCXU_NSEC_PER_MSEC	(1000 * SCXU_NSEC_PER_USEC)
#define SCXU_NSEC_PER_SEC	(1000 * SCXU_NSEC_PER_MSEC)

/* The ns from @since to @now; 0 if @since is 0. Never negative: the clocks of two CPUs may differ a little. */
static __always_inline u64 scxu_ns_since(u64 since, u64 now)
{
	s64 passed = now - since;

	return since && passed > 0 ? passed : 0;
}

/* A task begins to run. @t has SCXU_RUN_TASK_COLUMNS. */
#define scxu_run_begin(t)			\
do {						\
	(t)->last_run_at_ns = scx_bpf_now();	\
	(t)->last_run_gen = scxu_run_id();	\
} while (0)

/*
 * How long the task has run since scxu_run_begin(), in ns, but at most SCXU_RUN_SLICES_MAX slices. While another task waits,
 * a run ends one tick after its slice. A longer run took nothing from another task: none waited, the machine was suspended,
 * or the hypervisor took the CPU away. A task that paid for all of that time would then wait for it once per competing task.
 */
#define scxu_run_ns(t, slice)						\
({									\
	u64 __ran = scxu_ns_since((t)->last_run_at_ns, scx_bpf_now());	\
	u64 __most = (t)->last_run_gen == scxu_run_id() ?		\
		     SCXU_RUN_SLICES_MAX * (slice) : (slice);		\
									\
	__ran < __most ? __ran : __most;				\
})

/*
 * The slice of a task of @weight: in proportion to its weight, from @min up to @slice. A shorter slice for a low weight
 * shortens the wait of the tasks behind it.
 */
static __always_inline u64 scxu_slice_of_weight(u64 slice, u64 min, u64 weight)
{
	u64 part = slice * weight / 100;

	if (part > slice)
		return slice;
	return part < min ? min : part;
}

/*
 * For dispatch when no task waits. The kernel then keeps running @prev if it is runnable, and gives it SCX_SLICE_DFL, 20 ms
 * (balance_one() and pick_task_scx(), kernel/sched/ext/ext.c). Every task that wakes up meanwhile would wait for that. This
 * gives @prev the policy's own slice instead.
 */
#define scxu_extend_prev_slice(prev, slice)			\
do {								\
	if ((prev) && (prev)->scx.flags & SCX_TASK_QUEUED)	\
		scx_bpf_task_set_slice(prev, slice);		\
} while (0)

#endif /* __SCX_UPGRADE_SLICE_BPF_H */

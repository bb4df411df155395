/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slices, and the time that a task has run.
 *
 *	running:	scxu_run_begin(t)
 *	stopping:	used = scxu_run_ns(t, slice)
 *
 * A task that is taken over while it runs was seen to begin by another policy: when is carried if that one kept it, and is
 * of long ago if it is this policy's own from before a swap away. So what began in an earlier run of the policy counts for a
 * slice at most. A policy that gives a task another slice while it runs (scxu_vtime_is_first()) charges it for the one before at
 * once, and calls scxu_run_begin() again.
 */
#ifndef __SCX_UPGRADE_SLICE_BPF_H
#define __SCX_UPGRADE_SLICE_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* The most slices that one turn is charged. */
#define SCXU_RUN_SLICES_MAX		4

#define SCXU_NSEC_PER_USEC	1000ULL
#define SCXU_NSEC_PER_MSEC	(1000 * SCXU_NSEC_PER_USEC)
#define SCXU_NSEC_PER_SEC	(1000 * SCXU_NSEC_PER_MSEC)

/* Since @since, which 0 stands for never. Clocks of CPUs may differ a little: no time is below zero. */
static __always_inline u64 scxu_ns_since(u64 since, u64 now)
{
	s64 passed = now - since;

	return since && passed > 0 ? passed : 0;
}

/* @t (a struct with SCXU_RUN_TASK_COLUMNS) begins to run. */
#define scxu_run_begin(t)			\
do {						\
	(t)->last_run_at_ns = scx_bpf_now();	\
	(t)->last_run_gen = scxu_run_id();	\
} while (0)

/*
 * How long it has run since then, ns, but at most four slices. A turn that someone waits for ends a tick after its slice.
 * What is longer is no turn that was taken from anyone: nobody waited, or the machine itself stood still, or its hypervisor
 * took the CPU away. A task that paid for all of that would wait as many times as long as there are others.
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
 * The slice of a task of @weight: one of little weight has a shorter turn as well, so that who waits for it waits less;
 * but no shorter than @min, and no longer than @slice.
 */
static __always_inline u64 scxu_slice_of_weight(u64 slice, u64 min, u64 weight)
{
	u64 part = slice * weight / 100;

	if (part > slice)
		return slice;
	return part < min ? min : part;
}

/*
 * For dispatch, where it has nothing to dispatch: the kernel goes on with @prev then, if that wants to, and gives it
 * SCX_SLICE_DFL, 20 ms (balance_one() and pick_task_scx(), kernel/sched/ext/ext.c), which all who wake meanwhile wait for.
 * Give it the slice that the policy would.
 */
#define scxu_extend_prev_slice(prev, slice)			\
do {								\
	if ((prev) && (prev)->scx.flags & SCX_TASK_QUEUED)	\
		scx_bpf_task_set_slice(prev, slice);		\
} while (0)

#endif /* __SCX_UPGRADE_SLICE_BPF_H */

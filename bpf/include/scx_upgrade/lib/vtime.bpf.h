/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual time. A task's virtual time grows by the time that the task runs, divided by its weight. The task with the smallest
 * virtual time runs next. The clock is the largest virtual time of any task that has begun to run.
 *
 *	struct policy_task {
 *		SCXU_VTIME_TASK_COLUMNS;
 *	} __policy_state;
 *
 *	struct policy_global {
 *		SCXU_VTIME_CLOCK_COLUMNS;
 *	} __policy_state;
 *
 *	enqueue:	vtime = scxu_vtime_place(t, &g->vtime_now, scxu_vtime_credit(enq_flags, slice))
 *	running:	scxu_vtime_begin(t, &g->vtime_now)
 *	stopping:	scxu_vtime_end(t, &g->vtime_now, scxu_vtime_of(used, weight))
 *
 * These helpers handle what usually goes wrong:
 *
 * - A clock that starts from zero in the next version is far behind all tasks that the swap carried. The clock is a column,
 *   so it continues. It begins at 2^40 ns, so subtracting a credit from it does not underflow.
 * - A task that slept for an hour would own the CPU until its virtual time caught up. Its place is at most @credit behind the
 *   clock.
 * - A task from a scheduler with another clock has a virtual time that means nothing here. It has no vtime column then, and
 *   its place follows from its lag, which means the same in every scheduler.
 * - A task that is far ahead would starve. Its place is at most SCXU_VTIME_MAX_AHEAD ahead of the clock.
 * - The clock leaps when a task that is far ahead runs before others: on an idle CPU, from another queue, or while the task
 *   before it is not queued again yet. A task of low weight is seconds ahead after one slice. A task that wakes up then
 *   starts at the new clock, and all tasks that kept running would go first. So their place is at most SCXU_VTIME_MAX_LAG
 *   behind the clock.
 * - Two queues of which one always goes first need a clock each.
 */
#ifndef __SCX_UPGRADE_VTIME_BPF_H
#define __SCX_UPGRADE_VTIME_BPF_H

#include <scx_upgrade/lib/slice.bpf.h>

/* The weight of a task of nice 0, and the default cpu.weight of a cgroup. */
#define SCXU_VTIME_WEIGHT	100ULL
#define SCXU_VTIME_MAX_AHEAD	(10 * SCXU_NSEC_PER_SEC)
#define SCXU_VTIME_MAX_LAG	(20 * SCXU_NSEC_PER_MSEC)

/* The virtual time of @ran ns on a CPU for a task of @weight. */
static __always_inline u64 scxu_vtime_of(u64 ran, u64 weight)
{
	return ran * SCXU_VTIME_WEIGHT / (weight ?: 1);
}

/* @vtime, but at most @credit behind @now and at most SCXU_VTIME_MAX_AHEAD ahead of it. */
static __always_inline u64 scxu_vtime_clamp(u64 vtime, u64 now, u64 credit)
{
	if (time_before(vtime, now - credit))
		return now - credit;
	if (time_before(now + SCXU_VTIME_MAX_AHEAD, vtime))
		return now + SCXU_VTIME_MAX_AHEAD;
	return vtime;
}

/*
 * The credit for scxu_vtime_place() in enqueue. A task that slept keeps at most @saved. A task that used its slice and still
 * wants to run keeps its lag, which is small while the task stays on one queue.
 */
static __always_inline u64 scxu_vtime_credit(u64 enq_flags, u64 saved)
{
	return enq_flags & SCX_ENQ_WAKEUP ? saved : SCXU_VTIME_MAX_LAG;
}

/* The virtual time to insert a task with. @t has SCXU_VTIME_TASK_COLUMNS; its vtime column is set too. */
#define scxu_vtime_place(t, clock, credit)							\
({												\
	u64 __now = *(clock);									\
												\
	(t)->vtime = scxu_vtime_clamp((t)->vtime ?: __now - (t)->vtime_lag_ns, __now, credit);	\
})

/* @t begins to run, so the clock follows. Two CPUs may race: the clock then goes back by one step at most. */
#define scxu_vtime_begin(t, clock)		\
do {						\
	if (time_before(*(clock), (t)->vtime))	\
		*(clock) = (t)->vtime;		\
} while (0)

/* @t has run for @used ns of virtual time. A task that this policy has not placed yet has no vtime, only a lag. */
#define scxu_vtime_end(t, clock, used)				\
do {								\
	u64 __used = (used);					\
								\
	if ((t)->vtime) {					\
		(t)->vtime += __used;				\
		(t)->vtime_lag_ns = *(clock) - (t)->vtime;	\
	} else {						\
		(t)->vtime_lag_ns -= __used;			\
	}							\
} while (0)

/*
 * For dispatch: is @prev, now at @vtime, still ahead of all tasks on @queue? If so, give @prev another slice and dispatch
 * nothing: the kernel keeps running it. The kernel calls dispatch before it queues @prev again. Without this check no task
 * runs for two slices in a row while others wait, however large its lag is.
 */
static __always_inline bool scxu_vtime_is_first(struct task_struct *prev, u64 vtime, u64 queue)
{
	struct task_struct *p;
	bool first = true;

	if (!(prev->scx.flags & SCX_TASK_QUEUED))
		return false;
	bpf_for_each(scx_dsq, p, queue, 0) {
		first = time_before(vtime, p->scx.dsq_vtime);
		break;
	}
	return first;
}

#endif /* __SCX_UPGRADE_VTIME_BPF_H */

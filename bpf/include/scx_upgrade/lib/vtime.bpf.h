/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtual time: each task's grows by the time that it runs, divided by its weight, and the task with the smallest runs
 * next. The clock is the largest virtual time that has begun to run.
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
 * What goes wrong without care, and does not here:
 *
 * - A clock that starts from zero in the next version puts all tasks that were carried ahead of it, or behind. The clock
 *   is a column, so it goes on; it begins at 2^40 ns and not at zero, so that a time before it is no huge number.
 * - A task that slept for an hour would own the CPU until it had caught up: it is placed at most @credit behind.
 * - A task that comes from a scheduler with another clock brings a number that means nothing here. It has no vtime then,
 *   and is placed by its lag, which means the same to everyone.
 * - A task that is far ahead, for whatever reason, would starve: it is placed at most SCXU_VTIME_MAX_AHEAD ahead.
 * - The clock leaps when a task that is far ahead runs though others come before it: on a CPU that was idle, out of another
 *   queue, or since the one before it is not back on its queue yet. A task of little weight is seconds ahead after one turn.
 *   Whoever wakes up is placed by the clock, and would wait until each of those that go on has caught up with it: they are
 *   placed at most SCXU_VTIME_MAX_LAG behind. Queues of which one goes before the other need a clock each.
 */
#ifndef __SCX_UPGRADE_VTIME_BPF_H
#define __SCX_UPGRADE_VTIME_BPF_H

#include <scx_upgrade/lib/slice.bpf.h>

/* Of a task of nice 0, and of a cgroup with the default cpu.weight. */
#define SCXU_VTIME_WEIGHT	100ULL
#define SCXU_VTIME_MAX_AHEAD	(10 * SCXU_NSEC_PER_SEC)
#define SCXU_VTIME_MAX_LAG	(20 * SCXU_NSEC_PER_MSEC)

/* @ran ns of a task of @weight, as virtual time. */
static __always_inline u64 scxu_vtime_of(u64 ran, u64 weight)
{
	return ran * SCXU_VTIME_WEIGHT / (weight ?: 1);
}

/* @vtime, not further behind @now than @credit, and not further ahead than SCXU_VTIME_MAX_AHEAD. */
static __always_inline u64 scxu_vtime_clamp(u64 vtime, u64 now, u64 credit)
{
	if (time_before(vtime, now - credit))
		return now - credit;
	if (time_before(now + SCXU_VTIME_MAX_AHEAD, vtime))
		return now + SCXU_VTIME_MAX_AHEAD;
	return vtime;
}

/*
 * The credit of a task that is put on a queue: one that slept saves no more than @saved; one that had its turn and wants
 * another keeps what it is owed, which while it waits in one queue is never much.
 */
static __always_inline u64 scxu_vtime_credit(u64 enq_flags, u64 saved)
{
	return enq_flags & SCX_ENQ_WAKEUP ? saved : SCXU_VTIME_MAX_LAG;
}

/* Where @t (a struct with SCXU_VTIME_TASK_COLUMNS) is to wait, which is also entered. */
#define scxu_vtime_place(t, clock, credit)							\
({												\
	u64 __now = *(clock);									\
												\
	(t)->vtime = scxu_vtime_clamp((t)->vtime ?: __now - (t)->vtime_lag_ns, __now, credit);	\
})

/* @t begins to run: the clock follows. Two CPUs may race for it; the clock never goes back by more than one step. */
#define scxu_vtime_begin(t, clock)		\
do {						\
	if (time_before(*(clock), (t)->vtime))	\
		*(clock) = (t)->vtime;		\
} while (0)

/* @t has run for @used ns of virtual time. One that this policy has not placed has its lag alone. */
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
 * For dispatch: is @prev, which is at @vtime by now, still before all that wait on @queue? The kernel asks for the next task
 * before it queues @prev again; so without this no task ever has two turns in a row while others wait, however much it is
 * owed. If so, give it another slice and dispatch nothing: the kernel goes on with it.
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

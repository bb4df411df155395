/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Aging: a bound for how long a task waits on a queue ordered by virtual time.
 *
 * Virtual time alone has no such bound. After one slice of 5 ms a task of nice 19 is a third of a second ahead of the clock.
 * With n busy tasks of nice 0 on c CPUs the clock advances by c/n of real time. With 200 such tasks on two CPUs the nice-19
 * task waits for 33 s, and the kernel ejects the scheduler after 30 s. A bound at enqueue does not help: the load may grow
 * while the task waits.
 *
 * So dispatch scans the queues periodically, and moves to the front each task that was already waiting at the scan before the
 * last one. Scans are at least SCXU_AGING_PERIOD_NS apart. A task therefore waits for at most two periods, and then for the
 * tasks in front of it: (2 * SCXU_AGING_PERIOD_NS) + (tasks that aged with it + CPUs) * (slice + one tick) / CPUs. With 200
 * tasks and slices of 5 ms that is 8 s on one CPU.
 *
 *	dispatch:	if (scxu_aging_due())
 *				my_age();
 *
 *	static __noinline int my_age(void)
 *	{
 *		scxu_vtime_age(waiting, waiting, scxu_global_state()->vtime_now, vtime);
 *		return 0;
 *	}
 *
 * A moved task starts from the clock again: scxu_vtime_age() also sets its column. So its run does not advance the clock for
 * the others. The price: a task whose share is smaller still runs once in six seconds.
 */
#ifndef __SCX_UPGRADE_AGING_BPF_H
#define __SCX_UPGRADE_AGING_BPF_H

#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

/* The shortest time between two scans. */
#define SCXU_AGING_PERIOD_NS		(3 * SCXU_NSEC_PER_SEC)
/* How many jiffies pass before dispatch reads the clock: a fraction of the period at any CONFIG_HZ. */
#define SCXU_AGING_JIFFIES		64
/* The most tasks of one queue that a scan visits. It starts at the back, where tasks are far ahead of the clock. */
#define SCXU_AGING_LOOK		2048

/*
 * When to read the clock, in jiffies; when to scan, in ns; the jiffies of the last scan. Weak: each source of a policy may
 * include this header, and all share one copy.
 */
__weak volatile u64 scxu_aging_read_at SEC(".data.scxu_aging");
__weak volatile u64 scxu_aging_look_at_ns SEC(".data.scxu_aging");
__weak volatile u64 scxu_aging_since SEC(".data.scxu_aging");
/* The jiffies of the scan before the last one: a task that has waited since then has aged. */
__weak volatile u64 scxu_aging_mark SEC(".data.scxu_aging");

/* Is a scan due, and does this CPU do it? */
static __noinline int scxu_aging_begin(void)
{
	u64 look_at = scxu_aging_look_at_ns, now = scx_bpf_now();

	scxu_aging_read_at = bpf_jiffies64() + SCXU_AGING_JIFFIES;
	if (time_before(now, look_at))
		return 0;
	if (__sync_val_compare_and_swap(&scxu_aging_look_at_ns, look_at, now + SCXU_AGING_PERIOD_NS) != look_at)
		return 0;
	scxu_aging_mark = scxu_aging_since;
	scxu_aging_since = bpf_jiffies64();
	return 1;
}

/* For dispatch. The verifier turns bpf_jiffies64() into a load, so this check compares two words. */
static __always_inline bool scxu_aging_due(void)
{
	return unlikely((s64)(bpf_jiffies64() - scxu_aging_read_at) >= 0) && scxu_aging_begin();
}

/*
 * Has the waiting task @p aged? The kernel sets runnable_at each time that a task begins to wait (set_task_runnable(),
 * kernel/sched/ext/ext.c). The kernel's watchdog uses the same field.
 */
static __always_inline bool scxu_has_aged(struct task_struct *p)
{
	return (s64)(p->scx.runnable_at - scxu_aging_mark) < 0;
}

/*
 * Move the aged tasks of @queue to the front of @to, which may be the same queue. @clock is the clock of @to, and @member the
 * column of a task's virtual time. Only for dispatch, after scxu_aging_due() returned true.
 */
#define scxu_vtime_age(queue, to, clock, member)			\
do {									\
	u64 __front = (clock) - SCXU_VTIME_MAX_LAG;			\
	u32 __looked = scxu_zero();					\
	struct task_struct *__p;					\
									\
	bpf_for_each(scx_dsq, __p, queue, SCX_DSQ_ITER_REV) {		\
		struct policy_task *__t;				\
									\
		if (++__looked > SCXU_AGING_LOOK)			\
			break;						\
		if (!scxu_has_aged(__p))				\
			continue;					\
		/* Before the front already: the clock has leaped since. */ \
		if ((queue) == (to) &&					\
		    !time_before(__front, __p->scx.dsq_vtime))		\
			continue;					\
		__t = scxu_task_peek(__p);				\
		if (__t)						\
			__t->member = __front;				\
		scx_bpf_dsq_move_set_vtime(BPF_FOR_EACH_ITER, __front);	\
		scx_bpf_dsq_move_vtime(BPF_FOR_EACH_ITER, __p, to, 0);	\
	}								\
} while (0)

/* The same for the queues of all LLCs. @name and @to are per-LLC DSQ groups. */
#define scxu_vtime_age_llcs(name, to, clock, member)								\
do {														\
	u32 __llcs = scxu_nr_llcs(), __llc;									\
														\
	bpf_for(__llc, 0, __llcs)										\
		scxu_vtime_age(scxu_queue_of_llc(name, __llc), scxu_queue_of_llc(to, __llc), clock, member);	\
} while (0)

/*
 * All of dispatch for a policy with one vtime queue and one clock: age, take the first task, and if there is none keep
 * running @prev for @slice. scxu_vtime_dispatch_llcs() is the same for a per-LLC DSQ group.
 */
#define scxu_vtime_dispatch(queue, clock, prev, slice)		\
do {								\
	if (scxu_aging_due())					\
		scxu_vtime_age(queue, queue, clock, vtime);	\
	if (!scx_bpf_dsq_move_to_local(queue, 0))		\
		scxu_extend_prev_slice(prev, slice);		\
} while (0)

#define scxu_vtime_dispatch_llcs(name, clock, cpu, prev, slice)	\
do {								\
	if (scxu_aging_due())					\
		scxu_vtime_age_llcs(name, name, clock, vtime);	\
	if (!scxu_move_to_local_from_llcs(name, cpu))		\
		scxu_extend_prev_slice(prev, slice);		\
} while (0)

#endif /* __SCX_UPGRADE_AGING_BPF_H */

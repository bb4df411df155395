/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Aging: a bound for how long a task waits on a queue by virtual time.
 *
 * Virtual time alone has no such bound. A task of nice 19 is a third of a second ahead of the clock after one turn of 5 ms,
 * and with n busy tasks of nice 0 on c CPUs the clock advances by c/n of real time: beside 200 of them on two CPUs the task
 * waits for 33 s. The kernel ejects the scheduler after 30 s. A bound that is computed when the task is queued does not
 * help where the load grows while the task waits.
 *
 * So dispatch looks through the queues now and then, and moves to the front each task that has waited since before the look
 * before. A look comes at least SCXU_AGING_PERIOD_NS after the last one. A task therefore waits for at most two periods, and then
 * for those at the front: (2 * SCXU_AGING_PERIOD_NS) + (tasks that have aged with it + CPUs) * (slice + one tick) / CPUs. With 200
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
 * A moved task starts from the clock again (scxu_vtime_age() also sets its column), so its turn moves the clock for no other.
 * The price is a turn in each six seconds for a task whose share is less than that.
 */
#ifndef __SCX_UPGRADE_AGING_BPF_H
#define __SCX_UPGRADE_AGING_BPF_H

#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

/* The shortest time between two looks. */
#define SCXU_AGING_PERIOD_NS		(3 * SCXU_NSEC_PER_SEC)
/* How many jiffies pass before dispatch reads the clock: a fraction of the period at any CONFIG_HZ. */
#define SCXU_AGING_JIFFIES		64
/* How many tasks of one queue a look sees at most, from the back, where those are that are far ahead of the clock. */
#define SCXU_AGING_LOOK		2048

/* When to read the clock, in jiffies; when to look, ns; the jiffies of the last look. */
__weak volatile u64 scxu_aging_read_at SEC(".data.scxu_aging");
__weak volatile u64 scxu_aging_look_at_ns SEC(".data.scxu_aging");
__weak volatile u64 scxu_aging_since SEC(".data.scxu_aging");
/* The jiffies of the look before it: a task that has waited since then has aged. */
__weak volatile u64 scxu_aging_mark SEC(".data.scxu_aging");

/* Is it time for a look, and is this CPU the one that takes it? */
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

/* For dispatch. The verifier turns bpf_jiffies64() into a load, so this is a comparison of two words. */
static __always_inline bool scxu_aging_due(void)
{
	return unlikely((s64)(bpf_jiffies64() - scxu_aging_read_at) >= 0) && scxu_aging_begin();
}

/*
 * Has @p, which waits, done so since before the last look? The kernel sets runnable_at each time that a task begins to
 * wait (set_task_runnable(), kernel/sched/ext/ext.c); its own watchdog measures by it.
 */
static __always_inline bool scxu_has_aged(struct task_struct *p)
{
	return (s64)(p->scx.runnable_at - scxu_aging_mark) < 0;
}

/*
 * Move the tasks of @queue that have aged to the front of @to, which may be the same. @clock is that of @to, and @member
 * the column of a task's virtual time there. Only for dispatch, after scxu_aging_due() was true.
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
		__t = scxu_task_peek(__p);				\
		if (__t)						\
			__t->member = __front;				\
		scx_bpf_dsq_move_set_vtime(BPF_FOR_EACH_ITER, __front);	\
		scx_bpf_dsq_move_vtime(BPF_FOR_EACH_ITER, __p, to, 0);	\
	}								\
} while (0)

/* The same for the queues of all LLCs. @name and @to are DSQ groups. */
#define scxu_vtime_age_llcs(name, to, clock, member)								\
do {														\
	u32 __llcs = scxu_nr_llcs(), __llc;									\
														\
	bpf_for(__llc, 0, __llcs)										\
		scxu_vtime_age(scxu_queue_of_llc(name, __llc), scxu_queue_of_llc(to, __llc), clock, member);	\
} while (0)

/*
 * All of dispatch, for a policy with one queue by virtual time and one clock: look for those that have aged, take the first,
 * and where there is none let @prev go on for @slice. scxu_vtime_dispatch_llcs() is for a DSQ group.
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

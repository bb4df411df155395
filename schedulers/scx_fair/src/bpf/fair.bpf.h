/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What both versions do. A version declares `struct policy_task` before it includes this file, with at least the
 * columns used here, and adds to it with two functions:
 *
 *	u64 fair_credit(t)		how far behind the clock a waking task may be placed, in ns of virtual time
 *	void fair_ran(t, used)		called with the ns that a task just ran
 *
 * The rule: each task's virtual time grows with the time it runs, divided by its weight; the one with the smallest
 * runs next. A task that slept is placed at most its credit behind the clock, so it runs soon but cannot starve the
 * others with what it did not use.
 */
#ifndef __FAIR_BPF_H
#define __FAIR_BPF_H

#include <scx_upgrade/lib/aging.bpf.h>

#define FAIR_WEIGHT	100ULL		/* of a task of nice 0 */
#define FAIR_MS		1000000ULL

/* The clock: the largest virtual time at which a task has begun to run. Carried, so that it never restarts. */
struct policy_global {
	u64	vtime_now;
} __policy_state;

/* Waiting tasks of all CPUs, by virtual time. */
SCXU_QUEUE_VTIME(fair_queue);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * FAIR_MS;

/* A task of little weight has shorter turns too, so that who waits for it waits less; but not shorter than this, ns. */
const volatile u64 slice_min_ns = FAIR_MS;

/* Statistics. */
u64 nr_direct, nr_queued;

static u64 fair_credit(struct policy_task *t);
static void fair_ran(struct policy_task *t, u64 used);

/* A decaying average: an eighth of the new value. */
static u64 fair_average(u64 old, u64 new)
{
	return old - (old >> 3) + (new >> 3);
}

static u64 fair_slice(struct task_struct *p)
{
	u64 slice = slice_ns * p->scx.weight / FAIR_WEIGHT;

	if (slice > slice_ns)
		return slice_ns;
	return slice < slice_min_ns ? slice_min_ns : slice;
}

static void fair_woke(struct policy_task *t)
{
	u64 now = scx_bpf_now(), since = now - t->last_woke_at;

	t->last_woke_at = now;
	/* Per second. A clock that stood or went back counts as the shortest time. */
	t->wakeup_freq = fair_average(t->wakeup_freq, 1000 * FAIR_MS / ((s64)since > 0 ? since : 1));
}

/*
 * A wake-up is counted here if it ends here, and in enqueue if not: as good as in an op for it, `runnable`, which the kernel
 * would have to call.
 */
s32 BPF_STRUCT_OPS(fair_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct policy_task *t;
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle) {
		t = scxu_task_state(p);
		if (t)
			fair_woke(t);
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, fair_slice(p), 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(fair_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 floor;

	if (!t) {
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, fair_slice(p), enq_flags);
		return;
	}
	if (enq_flags & SCX_ENQ_WAKEUP)
		fair_woke(t);
	floor = scxu_global_state()->vtime_now - fair_credit(t);
	if (time_before(t->vtime, floor))
		t->vtime = floor;
	scx_bpf_dsq_insert_vtime(p, fair_queue, fair_slice(p), t->vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
}

static __noinline int fair_age(void)
{
	scxu_vtime_age(fair_queue, fair_queue, scxu_global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(fair_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scxu_aging_due())
		fair_age();
	if (!scx_bpf_dsq_move_to_local(fair_queue, 0))
		scxu_extend_prev_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(fair_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	struct policy_global *g = scxu_global_state();

	if (!t)
		return;
	t->last_run_at = scx_bpf_now();
	if (time_before(g->vtime_now, t->vtime))
		g->vtime_now = t->vtime;
}

void BPF_STRUCT_OPS(fair_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);
	s64 used;

	/* A task that is taken over while it runs has not been seen to begin: nothing to charge yet. */
	if (!t || !t->last_run_at)
		return;
	used = scx_bpf_now() - t->last_run_at;
	if (used < 0)
		used = 0;
	/* The stamp may be of before a swap away and back. Who ran for longer had no one waiting. */
	if (used > (s64)(2 * slice_ns))
		used = 2 * slice_ns;
	t->vtime += used * FAIR_WEIGHT / (p->scx.weight ?: 1);
	t->avg_runtime = fair_average(t->avg_runtime, used);
	fair_ran(t, used);
}

/* A task that is born under this policy starts at the clock. */
void BPF_STRUCT_OPS(fair_enable, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->vtime = scxu_global_state()->vtime_now;
}

#define FAIR_OPS					\
	.select_cpu	= (void *)fair_select_cpu,	\
	.enqueue	= (void *)fair_enqueue,		\
	.dispatch	= (void *)fair_dispatch,	\
	.running	= (void *)fair_running,		\
	.stopping	= (void *)fair_stopping,	\
	.enable		= (void *)fair_enable

#endif /* __FAIR_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_fair 3: cgroups count. Each task's virtual time grows by the time that it runs, divided by its share of the whole:
 * its weight among those that want to run in its cgroup, times the cgroup's among its siblings, and so on up to the root.
 * The averages of version 2 are gone: who sleeps is placed at most one slice behind the clock.
 */
#include <scx_upgrade/aging.bpf.h>
#include <scx_upgrade/idle.bpf.h>
#include <scx_upgrade/vtime.bpf.h>
#include <scx_upgrade/slice.bpf.h>

struct policy_task {
	VTIME_TASK_COLUMNS;
	u64	last_run_at_ns __from(last_run_at) __momentary;
	u32	last_run_gen __momentary;
	SHARES_TASK_COLUMNS;
} __policy_state;

struct policy_cgroup {
	SHARES_CGROUP_COLUMNS;
} __policy_state;

struct policy_global {
	VTIME_CLOCK_COLUMNS;
} __policy_state;

#include <scx_upgrade/shares.bpf.h>

/* Waiting tasks of all CPUs, by virtual time. */
POLICY_QUEUE_VTIME(fair_queue);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * NSEC_PER_MSEC_ULL;

/* Statistics. */
u64 nr_direct, nr_queued;

s32 BPF_STRUCT_OPS(fair_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(fair_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = task_state(p);
	u64 now = global_state()->vtime_now, vtime;

	if (t)
		shares_join(p, t);
	vtime = t ? vtime_place(t, &now, vtime_credit(enq_flags, slice_ns)) : now;
	scx_bpf_dsq_insert_vtime(p, fair_queue, slice_ns, vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	wake_idle_cpu(p);
}

static __noinline int fair_age(void)
{
	vtime_age(fair_queue, fair_queue, global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(fair_dispatch, s32 cpu, struct task_struct *prev)
{
	struct policy_task *t = prev ? task_state(prev) : NULL;
	u64 used;

	if (aging_due())
		fair_age();
	if (t && t->share) {
		used = vtime_of(run_ns(t, slice_ns) * SHARES_ONE, t->share);
		if (vtime_is_first(prev, t->vtime + used, fair_queue)) {
			/* It pays for each slice: one turn is charged no more than a few. */
			vtime_end(t, &global_state()->vtime_now, used);
			run_begin(t);
			scx_bpf_task_set_slice(prev, slice_ns);
			return;
		}
	}
	if (!scx_bpf_dsq_move_to_local(fair_queue, 0))
		go_on(prev, slice_ns);
}

void BPF_STRUCT_OPS(fair_runnable, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = task_state(p);

	if (t)
		shares_join(p, t);
}

void BPF_STRUCT_OPS(fair_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct policy_task *t = task_state(p);

	if (t)
		shares_leave(p, t);
}

void BPF_STRUCT_OPS(fair_running, struct task_struct *p)
{
	struct policy_task *t = task_state(p);

	if (!t)
		return;
	run_begin(t);
	/* For dispatch, which may ask before it stops. */
	share_of(p, t);
	vtime_begin(t, &global_state()->vtime_now);
}

void BPF_STRUCT_OPS(fair_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = task_state(p);

	if (!t)
		return;
	shares_join(p, t);
	vtime_end(t, &global_state()->vtime_now, vtime_of(run_ns(t, slice_ns) * SHARES_ONE, share_of(p, t)));
}

void BPF_STRUCT_OPS(fair_cgroup_set_weight, struct cgroup *cgrp, u32 weight)
{
	shares_set_weight(cgrp, weight);
}

POLICY_DEFINE("scx_fair",
	      .select_cpu		= (void *)fair_select_cpu,
	      .enqueue			= (void *)fair_enqueue,
	      .dispatch			= (void *)fair_dispatch,
	      .runnable			= (void *)fair_runnable,
	      .quiescent		= (void *)fair_quiescent,
	      .running			= (void *)fair_running,
	      .stopping			= (void *)fair_stopping,
	      .cgroup_set_weight	= (void *)fair_cgroup_set_weight);

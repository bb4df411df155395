/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_fair 3: cgroups count. Each task's virtual time grows by the time that it runs, divided by its share of the whole:
 * its weight among those that want to run in its cgroup, times the cgroup's among its siblings, and so on up to the root.
 * The averages of version 2 are gone: who sleeps is placed at most one slice behind the clock.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	u64	last_run_at_ns __from(last_run_at) __momentary;
	u32	last_run_gen __momentary;
	SCXU_SHARES_TASK_COLUMNS;
} __policy_state;

struct policy_cgroup {
	SCXU_SHARES_CGROUP_COLUMNS;
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

#include <scx_upgrade/lib/shares.bpf.h>

/* Waiting tasks of all CPUs, by virtual time. */
SCXU_QUEUE_VTIME(fair_queue);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;

/* Statistics. */
u64 nr_direct, nr_queued;

s32 BPF_STRUCT_OPS(fair_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(fair_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scxu_global_state()->vtime_now, vtime;

	if (t)
		scxu_shares_join(p, t);
	vtime = t ? scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, slice_ns)) : now;
	scx_bpf_dsq_insert_vtime(p, fair_queue, slice_ns, vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	scxu_wake_idle_cpu(p);
}

static __noinline int fair_age(void)
{
	scxu_vtime_age(fair_queue, fair_queue, scxu_global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(fair_dispatch, s32 cpu, struct task_struct *prev)
{
	struct policy_task *t = prev ? scxu_task_state(prev) : NULL;
	u64 used;

	if (scxu_aging_due())
		fair_age();
	if (t && t->share) {
		used = scxu_vtime_of(scxu_run_ns(t, slice_ns) * SCXU_SHARES_ONE, t->share);
		if (scxu_vtime_is_first(prev, t->vtime + used, fair_queue)) {
			/* It pays for each slice: one turn is charged no more than a few. */
			scxu_vtime_end(t, &scxu_global_state()->vtime_now, used);
			scxu_run_begin(t);
			scx_bpf_task_set_slice(prev, slice_ns);
			return;
		}
	}
	if (!scx_bpf_dsq_move_to_local(fair_queue, 0))
		scxu_extend_prev_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(fair_runnable, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_shares_join(p, t);
}

void BPF_STRUCT_OPS(fair_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_shares_leave(p, t);
}

void BPF_STRUCT_OPS(fair_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (!t)
		return;
	scxu_run_begin(t);
	/* For dispatch, which may ask before it stops. */
	scxu_share_of(p, t);
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
}

void BPF_STRUCT_OPS(fair_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (!t)
		return;
	scxu_shares_join(p, t);
	scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(scxu_run_ns(t, slice_ns) * SCXU_SHARES_ONE, scxu_share_of(p, t)));
}

void BPF_STRUCT_OPS(fair_cgroup_set_weight, struct cgroup *cgrp, u32 weight)
{
	scxu_shares_set_weight(cgrp, weight);
}

SCXU_POLICY_DEFINE("scx_fair",
	      .select_cpu		= (void *)fair_select_cpu,
	      .enqueue			= (void *)fair_enqueue,
	      .dispatch			= (void *)fair_dispatch,
	      .runnable			= (void *)fair_runnable,
	      .quiescent		= (void *)fair_quiescent,
	      .running			= (void *)fair_running,
	      .stopping			= (void *)fair_stopping,
	      .cgroup_set_weight	= (void *)fair_cgroup_set_weight);

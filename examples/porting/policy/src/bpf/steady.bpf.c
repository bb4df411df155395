/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * steady, as a policy: one queue by virtual time. A task that took short turns lately may be placed further behind the
 * clock, and so runs sooner.
 */
/* ANCHOR: head */
#include <scx_upgrade/policy.bpf.h>
/* ANCHOR_END: head */

/* ANCHOR: settings */
/* Longest turn on the CPU, ns. */
const volatile u64 slice_ns = 5000000;
/* ANCHOR_END: settings */

/* ANCHOR: clock */
struct policy_global {
	u64	vtime_now;	/* the largest virtual time at which a task has begun to run */
} __policy_state;
/* ANCHOR_END: clock */

/* ANCHOR: queue */
SCXU_QUEUE_VTIME(steady_queue);
/* ANCHOR_END: queue */

/* ANCHOR: task */
struct policy_task {
	u64	vtime;		/* ns of run time, scaled to weight 100 */
	u64	began_at __momentary __timestamp;	/* 0 where it was not seen to begin */
	u64	avg_turn;	/* ns on the CPU per turn, decaying */
} __policy_state;
/* ANCHOR_END: task */

/* ANCHOR: stats */
/* How often each CPU was given a task directly, and how often one came from the queue. */
struct policy_cpu {
	u64	nr_direct;
	u64	nr_queued;
} __policy_state;

static struct policy_cpu *this_cpu_stats(void)
{
	return scxu_cpu_state(bpf_get_smp_processor_id());
}
/* ANCHOR_END: stats */

s32 BPF_STRUCT_OPS(steady_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct policy_cpu *s = this_cpu_stats();
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		if (s)
			s->nr_direct++;
	}
	return cpu;
}

/* ANCHOR: enqueue */
void BPF_STRUCT_OPS(steady_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	struct policy_cpu *s = this_cpu_stats();
	u64 floor = scxu_global_state()->vtime_now - slice_ns;

	if (!t) {
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, slice_ns, enq_flags);
		return;
	}
	/* Who takes half turns may be a slice further behind. */
	if (t->avg_turn < slice_ns / 2)
		floor -= slice_ns;
	if (time_before(t->vtime, floor))
		t->vtime = floor;
	scx_bpf_dsq_insert_vtime(p, steady_queue, slice_ns, t->vtime, enq_flags);
	if (s)
		s->nr_queued++;
}
/* ANCHOR_END: enqueue */

void BPF_STRUCT_OPS(steady_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(steady_queue, 0);
}

/* ANCHOR: running */
void BPF_STRUCT_OPS(steady_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	struct policy_global *g = scxu_global_state();

	if (!t)
		return;
	t->began_at = scx_bpf_now();
	if (time_before(g->vtime_now, t->vtime))
		g->vtime_now = t->vtime;
}

void BPF_STRUCT_OPS(steady_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);
	s64 used;

	/* A task that is taken over while it runs was not seen to begin. */
	if (!t || !t->began_at)
		return;
	used = scx_bpf_now() - t->began_at;
	t->began_at = 0;
	if (used < 0)
		used = 0;
	/* Its beginning may be from before another policy ran: that time was not spent on the CPU under this one. */
	if (used > 2 * slice_ns)
		used = 2 * slice_ns;
	t->vtime += used * 100 / (p->scx.weight ?: 1);
	t->avg_turn += ((u64)used >> 2) - (t->avg_turn >> 2);
}
/* ANCHOR_END: running */

/* ANCHOR: enable */
/* A task that is born under this policy starts at the clock. */
void BPF_STRUCT_OPS(steady_enable, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->vtime = scxu_global_state()->vtime_now;
}
/* ANCHOR_END: enable */

/* ANCHOR: ops */
SCXU_POLICY_DEFINE("steady",
	      .select_cpu	= (void *)steady_select_cpu,
	      .enqueue		= (void *)steady_enqueue,
	      .dispatch		= (void *)steady_dispatch,
	      .running		= (void *)steady_running,
	      .stopping		= (void *)steady_stopping,
	      .enable		= (void *)steady_enable);
/* ANCHOR_END: ops */

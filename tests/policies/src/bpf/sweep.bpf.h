/* SPDX-License-Identifier: GPL-2.0-only */
/* Two versions that are five columns of a task and two of a cgroup apart: what a sweep costs is measured with them. */
#ifndef __SWEEP_BPF_H
#define __SWEEP_BPF_H

/* By virtual time and with turns by weight, as in a scheduler that one would run: delays are measured under it too. */
SCXU_QUEUE_VTIME(sweep_queue);

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

static __always_inline u64 sweep_slice(struct task_struct *p)
{
	return scxu_slice_of_weight(5 * SCXU_NSEC_PER_MSEC, SCXU_NSEC_PER_MSEC, p->scx.weight);
}

s32 BPF_STRUCT_OPS(sweep_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, sweep_slice(p), 0);
	return cpu;
}

void BPF_STRUCT_OPS(sweep_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scxu_global_state()->vtime_now, slice = sweep_slice(p);
	u64 vtime = t ? scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, slice)) : now;

	scx_bpf_dsq_insert_vtime(p, sweep_queue, slice, vtime, enq_flags);
	scxu_wake_idle_cpu(p);
}

void BPF_STRUCT_OPS(sweep_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(sweep_queue, 0))
		scxu_extend_prev_slice(prev, sweep_slice(prev));
}

void BPF_STRUCT_OPS(sweep_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(scxu_run_ns(t, sweep_slice(p)), p->scx.weight));
}

void BPF_STRUCT_OPS(sweep_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (t) {
		t->turns++;
		scxu_run_begin(t);
		scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	}
	if (cgrp) {
		struct policy_cgroup *group = scxu_cgroup_state(cgrp);

		if (group)
			__sync_fetch_and_add(&group->turns, 1);
		bpf_cgroup_release(cgrp);
	}
}

#define SWEEP_OPS					\
	.select_cpu	= (void *)sweep_select_cpu,	\
	.enqueue	= (void *)sweep_enqueue,	\
	.dispatch	= (void *)sweep_dispatch,	\
	.running	= (void *)sweep_running,	\
	.stopping	= (void *)sweep_stopping

#endif /* __SWEEP_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* Two versions that are five columns of a task and two of a cgroup apart: what a sweep costs is measured with them. */
#ifndef __SWEEP_BPF_H
#define __SWEEP_BPF_H

/* By virtual time and with turns by weight, as in a scheduler that one would run: delays are measured under it too. */
POLICY_QUEUE_VTIME(sweep_queue);

struct policy_global {
	VTIME_CLOCK_COLUMNS;
} __policy_state;

static __always_inline u64 sweep_slice(struct task_struct *p)
{
	return slice_of_weight(5 * NSEC_PER_MSEC_ULL, NSEC_PER_MSEC_ULL, p->scx.weight);
}

s32 BPF_STRUCT_OPS(sweep_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, sweep_slice(p), 0);
	return cpu;
}

void BPF_STRUCT_OPS(sweep_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = task_state(p);
	u64 now = global_state()->vtime_now, slice = sweep_slice(p);
	u64 vtime = t ? vtime_place(t, &now, vtime_credit(enq_flags, slice)) : now;

	scx_bpf_dsq_insert_vtime(p, sweep_queue, slice, vtime, enq_flags);
	wake_idle_cpu(p);
}

void BPF_STRUCT_OPS(sweep_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(sweep_queue, 0))
		go_on(prev, sweep_slice(prev));
}

void BPF_STRUCT_OPS(sweep_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = task_state(p);

	if (t)
		vtime_end(t, &global_state()->vtime_now, vtime_of(run_ns(t, sweep_slice(p)), p->scx.weight));
}

void BPF_STRUCT_OPS(sweep_running, struct task_struct *p)
{
	struct policy_task *t = task_state(p);
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (t) {
		t->turns++;
		run_begin(t);
		vtime_begin(t, &global_state()->vtime_now);
	}
	if (cgrp) {
		struct policy_cgroup *group = cgroup_state(cgrp);

		if (group)
			__sync_fetch_and_add(&group->turns, 1);
		bpf_cgroup_release(cgrp);
	}
}

#define SWEEP_OPS							\
	.select_cpu	= (void *)sweep_select_cpu,			\
	.enqueue	= (void *)sweep_enqueue,			\
	.dispatch	= (void *)sweep_dispatch,			\
	.running	= (void *)sweep_running,			\
	.stopping	= (void *)sweep_stopping

#endif /* __SWEEP_BPF_H */

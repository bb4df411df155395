/* SPDX-License-Identifier: GPL-2.0-only */
/* Two versions that are five columns of a task and two of a cgroup apart: what a sweep costs is measured with them. */
#ifndef __SWEEP_BPF_H
#define __SWEEP_BPF_H

POLICY_QUEUE_FIFO(sweep_queue);

void BPF_STRUCT_OPS(sweep_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, sweep_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(sweep_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(sweep_queue, 0);
}

void BPF_STRUCT_OPS(sweep_running, struct task_struct *p)
{
	struct policy_task *t = task_state(p);
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (t)
		t->turns++;
	if (cgrp) {
		struct policy_cgroup *group = cgroup_state(cgrp);

		if (group)
			__sync_fetch_and_add(&group->turns, 1);
		bpf_cgroup_release(cgrp);
	}
}

#define SWEEP_OPS							\
	.enqueue	= (void *)sweep_enqueue,			\
	.dispatch	= (void *)sweep_dispatch,			\
	.running	= (void *)sweep_running

#endif /* __SWEEP_BPF_H */

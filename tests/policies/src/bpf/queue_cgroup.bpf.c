/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue for each cgroup, served in turn: a turn is for those who wait there when it begins, so that a task among many
 * waits no longer than one among few. Each cgroup's record says which queue its tasks were last put on.
 */
#include <scx_upgrade/policy.bpf.h>

struct policy_cgroup {
	u64	queue;
} __policy_state;

SCXU_QUEUE_FIFO_PER_CGROUP(work);

/* Whose turn it is, and how many of its tasks are still to have theirs. CPUs race for it, which does no harm. */
u32 turn;
s32 left;

void BPF_STRUCT_OPS(cgroup_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);
	struct policy_cgroup *state = scxu_cgroup_state(cgrp);
	u64 queue = scxu_queue_of_cgroup(work, cgrp);

	if (state)
		state->queue = queue;
	bpf_cgroup_release(cgrp);
	scx_bpf_dsq_insert(p, queue, SCX_SLICE_DFL, enq_flags);
	scx_bpf_kick_cpu(scx_bpf_task_cpu(p), SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(cgroup_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 queues = scxu_nr_cgroup_queues(), from = turn, i;

	bpf_for(i, 0, queues) {
		u32 number = from + i;
		u64 queue;

		if (number >= queues)
			number -= queues;
		queue = scxu_cgroup_queue(work, number);
		if (!scx_bpf_dsq_move_to_local(queue, 0))
			continue;
		left = i ? scx_bpf_dsq_nr_queued(queue) : left - 1;
		turn = left > 0 ? number : number + 1;
		return;
	}
}

SCXU_POLICY_DEFINE("queue_cgroup", .enqueue = (void *)cgroup_enqueue, .dispatch = (void *)cgroup_dispatch);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The chain: versions of one policy that go through each kind of change. A version sets its columns only when a task
 * has none of its own yet, from its PID, and adds one to `runs` each turn. So for a task that does not run, an oracle
 * that applies the plans to what it saw before knows every byte, and for one that runs all but `runs`.
 */
#ifndef __CHAIN_BPF_H
#define __CHAIN_BPF_H

SCXU_QUEUE_FIFO(chain_queue);

void BPF_STRUCT_OPS(chain_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, chain_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(chain_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(chain_queue, 0);
}

void BPF_STRUCT_OPS(chain_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	struct policy_cpu *c = scxu_cpu_state(bpf_get_smp_processor_id());
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (t)
		chain_turn(t, p->pid);
	if (cgrp) {
		struct policy_cgroup *group = scxu_cgroup_state(cgrp);

		if (group)
			__sync_fetch_and_add(&group->touches, 1);
		bpf_cgroup_release(cgrp);
	}
	if (c)
		c->turns++;
	scxu_global_state()->turns++;
}

#define CHAIN_OPS					\
	.enqueue	= (void *)chain_enqueue,	\
	.dispatch	= (void *)chain_dispatch,	\
	.running	= (void *)chain_running

#endif /* __CHAIN_BPF_H */

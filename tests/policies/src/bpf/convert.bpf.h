/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Versions of one policy that convert columns of every scope by programs of their own. As in the chain, a version sets
 * its columns only when there is nothing in them yet, so an oracle knows every byte of them. `tally` and `beat` go up
 * with `runs` each turn, so that what one lost would show even in a task that never sleeps.
 */
#ifndef __CONVERT_BPF_H
#define __CONVERT_BPF_H

SCXU_QUEUE_FIFO(convert_queue);

void BPF_STRUCT_OPS(convert_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, convert_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(convert_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(convert_queue, 0);
}

void BPF_STRUCT_OPS(convert_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	u32 cpu = bpf_get_smp_processor_id();
	struct policy_cpu *c = scxu_cpu_state(cpu);
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (t) {
		convert_task(t, p->pid);
		t->runs++;
		t->beat++;
	}
	if (c)
		convert_cpu(c, cpu);
	if (cgrp) {
		struct policy_cgroup *g = scxu_cgroup_state(cgrp);

		if (g)
			convert_cgroup(g, cgrp->kn->id);
		bpf_cgroup_release(cgrp);
	}
	convert_global(scxu_global_state());
}

#define CONVERT_OPS					\
	.enqueue	= (void *)convert_enqueue,	\
	.dispatch	= (void *)convert_dispatch,	\
	.running	= (void *)convert_running

#endif /* __CONVERT_BPF_H */

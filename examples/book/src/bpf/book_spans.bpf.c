/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on queues: one of each span. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: declare */
SCXU_QUEUE_VTIME(shared);			/* one for everyone */
SCXU_QUEUE_FIFO_PER_CPU(local);		/* one for each CPU */
SCXU_QUEUE_VTIME_PER_LLC(near);		/* one for each last-level cache */
SCXU_QUEUE_FIFO_PER_CGROUP(group);		/* one for each cgroup */
/* ANCHOR_END: declare */

struct policy_task {
	u64	vtime;
} __policy_state;

/* ANCHOR: enqueue */
void BPF_STRUCT_OPS(spans_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 vtime = t ? t->vtime : 0, slice = SCX_SLICE_DFL;
	s32 cpu = scx_bpf_task_cpu(p);
	struct cgroup *cgrp;

	switch (p->pid & 3) {
	case 0:
		scx_bpf_dsq_insert_vtime(p, shared, slice, vtime, enq_flags);
		break;
	case 1:
		scx_bpf_dsq_insert(p, scxu_queue_of_cpu(local, cpu), slice, enq_flags);
		break;
	case 2:
		scx_bpf_dsq_insert_vtime(p, scxu_queue_of_llc(near, scxu_llc_of_cpu(cpu)), slice, vtime, enq_flags);
		break;
	default:
		cgrp = scx_bpf_task_cgroup(p);
		scx_bpf_dsq_insert(p, scxu_queue_of_cgroup(group, cgrp), slice, enq_flags);
		bpf_cgroup_release(cgrp);
	}
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}
/* ANCHOR_END: enqueue */

/* ANCHOR: dispatch */
static bool serve_cgroups(void)
{
	u32 queues = scxu_nr_cgroup_queues(), from = bpf_get_prandom_u32() % queues, i;

	bpf_for(i, 0, queues) {
		u32 number = from + i;

		if (number >= queues)
			number -= queues;
		if (scx_bpf_dsq_move_to_local(scxu_cgroup_queue(group, number), 0))
			return true;
	}
	return false;
}

/* Who always begins with the same queue starves the others: begin with any of them. */
void BPF_STRUCT_OPS(spans_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 from = bpf_get_prandom_u32(), i;

	bpf_for(i, 0, 4) {
		u32 which = (from + i) & 3;

		if (which == 0 && scx_bpf_dsq_move_to_local(shared, 0))
			return;
		if (which == 1 && scx_bpf_dsq_move_to_local(scxu_queue_of_cpu(local, cpu), 0))
			return;
		if (which == 2 && scx_bpf_dsq_move_to_local(scxu_queue_of_llc(near, scxu_llc_of_cpu(cpu)), 0))
			return;
		if (which == 3 && serve_cgroups())
			return;
	}
}
/* ANCHOR_END: dispatch */

SCXU_POLICY_DEFINE("book_spans",
	      .enqueue		= (void *)spans_enqueue,
	      .dispatch		= (void *)spans_dispatch);

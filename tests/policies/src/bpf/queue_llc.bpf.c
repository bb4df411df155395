/* SPDX-License-Identifier: GPL-2.0-only */
/* A queue for each LLC, and one for each CPU for tasks that can run on no other: two groups at once. */
#include <scx_upgrade/policy.bpf.h>

SCXU_QUEUE_FIFO_PER_LLC(work);
SCXU_QUEUE_FIFO_PER_CPU(bound);

void BPF_STRUCT_OPS(llc_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	u64 queue = p->nr_cpus_allowed == 1 ? scxu_queue_of_cpu(bound, cpu) : scxu_queue_of_llc(work, scxu_llc_of_cpu(cpu));

	scx_bpf_dsq_insert(p, queue, SCX_SLICE_DFL, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(llc_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 llcs = scxu_nr_llcs(), own = scxu_llc_of_cpu(cpu), i;

	if (scx_bpf_dsq_move_to_local(scxu_queue_of_cpu(bound, cpu), 0))
		return;
	bpf_for(i, 0, llcs) {
		u32 from = own + i;

		if (scx_bpf_dsq_move_to_local(scxu_queue_of_llc(work, from < llcs ? from : from - llcs), 0))
			return;
	}
}

SCXU_POLICY_DEFINE("queue_llc", .enqueue = (void *)llc_enqueue, .dispatch = (void *)llc_dispatch);

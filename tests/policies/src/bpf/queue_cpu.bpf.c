/* SPDX-License-Identifier: GPL-2.0-only */
/* A queue for each CPU, by virtual time. A CPU serves its own, then the next one's. */
#include <scx_upgrade/policy.bpf.h>

SCXU_QUEUE_VTIME_PER_CPU(work);

void BPF_STRUCT_OPS(cpu_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	scx_bpf_dsq_insert_vtime(p, scxu_queue_of_cpu(work, cpu), SCX_SLICE_DFL, bpf_ktime_get_ns(), enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(cpu_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 cpus = scx_bpf_nr_cpu_ids(), i;

	bpf_for(i, 0, cpus) {
		u32 from = cpu + i;

		if (scx_bpf_dsq_move_to_local(scxu_queue_of_cpu(work, from < cpus ? from : from - cpus), 0))
			return;
	}
}

SCXU_POLICY_DEFINE("queue_cpu", .enqueue = (void *)cpu_enqueue, .dispatch = (void *)cpu_dispatch);

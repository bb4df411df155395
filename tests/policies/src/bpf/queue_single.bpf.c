/* SPDX-License-Identifier: GPL-2.0-only */
/* Another queue under the name that the groups of queue_cpu, queue_llc and queue_cgroup have. */
#include <scx_upgrade/policy.bpf.h>

SCXU_QUEUE_FIFO(work);

void BPF_STRUCT_OPS(single_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, work, SCX_SLICE_DFL, enq_flags);
	scx_bpf_kick_cpu(scx_bpf_task_cpu(p), SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(single_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(work, 0);
}

SCXU_POLICY_DEFINE("queue_single", .enqueue = (void *)single_enqueue, .dispatch = (void *)single_dispatch);

/* SPDX-License-Identifier: GPL-2.0-only */
/* The smallest policy that schedules: one FIFO. The bad ones are this with one thing wrong. */
#ifndef __PLAIN_BPF_H
#define __PLAIN_BPF_H

SCXU_QUEUE_FIFO(plain_queue);

void BPF_STRUCT_OPS(plain_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, plain_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(plain_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(plain_queue, 0);
}

#define PLAIN_OPS	.enqueue = (void *)plain_enqueue, .dispatch = (void *)plain_dispatch

#endif /* __PLAIN_BPF_H */

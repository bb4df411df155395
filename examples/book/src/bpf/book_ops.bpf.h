/* SPDX-License-Identifier: GPL-2.0-only */
/* The ops of the policies that are about state: tasks run in the order in which they come. */
SCXU_QUEUE_FIFO(book_queue);

void BPF_STRUCT_OPS(book_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, book_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(book_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(book_queue, 0);
}

#define BOOK_OPS				\
	.enqueue	= (void *)book_enqueue,	\
	.dispatch	= (void *)book_dispatch

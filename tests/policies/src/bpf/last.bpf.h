/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger with an ops flag: `last_on` asks for SCX_OPS_ENQ_LAST, `last_off` does not, so a swap between the two is a
 * reattach. `lasts` counts the enqueues that only a kernel that was asked for the flag makes. Each turn leaves a
 * dsq_vtime, which nothing else writes: a task's enable in particular does not.
 */
#ifndef __LAST_BPF_H
#define __LAST_BPF_H

#define LEDGER_OWN_ENQUEUE
#include "ledger.bpf.h"

void BPF_STRUCT_OPS(last_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (enq_flags & SCX_ENQ_LAST) {
		__sync_fetch_and_add(&scxu_global_state()->lasts, 1);
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, ledger_queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(last_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		p->scx.dsq_vtime = t->turns * 1000 + 7;
}

#define LAST_OPS					\
	.enqueue	= (void *)last_enqueue,		\
	.dispatch	= (void *)ledger_dispatch,	\
	.running	= (void *)ledger_running,	\
	.stopping	= (void *)last_stopping

#endif /* __LAST_BPF_H */

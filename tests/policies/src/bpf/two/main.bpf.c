/* SPDX-License-Identifier: GPL-2.0-only */
/* A policy of two sources. This one has the policy, and the ops of tasks that run. */
#include <scx_upgrade/policy.bpf.h>
#include "two.bpf.h"

void BPF_STRUCT_OPS(two_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(two_queue, 0);
}

void BPF_STRUCT_OPS(two_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->ran++;
}

/* Called by the other source. */
u64 two_slice(u64 ran)
{
	return ran & 1 ? SCX_SLICE_DFL : SCX_SLICE_DFL / 2;
}

extern void two_enqueue(unsigned long long *ctx);

SCXU_POLICY_DEFINE("two",
		   .enqueue	= (void *)two_enqueue,
		   .dispatch	= (void *)two_dispatch,
		   .stopping	= (void *)two_stopping);

/* SPDX-License-Identifier: GPL-2.0-only */
/* The other source of the policy: it places tasks. */
#include <scx_upgrade/declare.bpf.h>
#include "two.bpf.h"

u64 nr_placed;

void BPF_STRUCT_OPS(two_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->enqueued++;
	__sync_fetch_and_add(&nr_placed, 1);
	scx_bpf_dsq_insert(p, two_queue, two_slice(t ? t->ran : 0), enq_flags);
}

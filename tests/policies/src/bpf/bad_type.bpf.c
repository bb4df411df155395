/* SPDX-License-Identifier: GPL-2.0-only */
/* Names a column of scx_fair with another type. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

struct policy_task {
	u32	vtime;
} __policy_state;

void BPF_STRUCT_OPS(bad_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->vtime++;
}

SCXU_POLICY_DEFINE("bad_type", PLAIN_OPS, .running = (void *)bad_running);

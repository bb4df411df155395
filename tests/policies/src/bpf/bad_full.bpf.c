/* SPDX-License-Identifier: GPL-2.0-only */
/* Wants more state than a record holds. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

struct policy_task {
	u64	runs[31];
	u64	more;
	u64	too_many;
} __policy_state;

void BPF_STRUCT_OPS(bad_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->too_many++;
}

SCXU_POLICY_DEFINE("bad_full", PLAIN_OPS, .running = (void *)bad_running);

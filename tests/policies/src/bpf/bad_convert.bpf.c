/* SPDX-License-Identifier: GPL-2.0-only */
/* Names a conversion that it does not have. */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	u64	level __convert(nowhere);
} __policy_state;

void BPF_STRUCT_OPS(bad_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->level++;
}

SCXU_POLICY_DEFINE("bad_convert", .running = (void *)bad_running);

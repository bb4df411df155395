/* SPDX-License-Identifier: GPL-2.0-only */
/* Keeps a pointer in its state. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

struct policy_task {
	u64	runs;
	void	*friend;
} __policy_state;

void BPF_STRUCT_OPS(bad_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->runs++;
}

SCXU_POLICY_DEFINE("bad_pointer", PLAIN_OPS, .running = (void *)bad_running);

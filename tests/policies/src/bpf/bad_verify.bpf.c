/* SPDX-License-Identifier: GPL-2.0-only */
/* Does not pass the verifier: it uses its record without a check for NULL. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

struct policy_task {
	u64	runs;
} __policy_state;

void BPF_STRUCT_OPS(bad_running, struct task_struct *p)
{
	scxu_task_state(p)->runs++;
}

SCXU_POLICY_DEFINE("bad_verify", PLAIN_OPS, .running = (void *)bad_running);

/* SPDX-License-Identifier: GPL-2.0-only */
/* Leaves all to the kernel, and counts the turns: whatever else it does is what the kernel does for a scheduler without. */
#include <scx_upgrade/policy.bpf.h>

struct policy_global {
	u64	bare_turns;
} __policy_state;

void BPF_STRUCT_OPS(bare_running, struct task_struct *p)
{
	__sync_fetch_and_add(&scxu_global_state()->bare_turns, 1);
}

SCXU_POLICY_DEFINE("bare", .running = (void *)bare_running);

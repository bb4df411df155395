/* SPDX-License-Identifier: GPL-2.0-only */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	u16	turns_low;
	s32	only_b __default(-5);	/* takes one each turn under last_on */
	u64	seal;
	u8	marks[5] __default(0xaa);
	u64	turns;
} __policy_state;

struct policy_cpu {
	u64	cpu_turns;
} __policy_state;

struct policy_cgroup {
	u64	cgroup_turns;
} __policy_state;

struct policy_global {
	u64	all_turns;
	u64	lasts;
} __policy_state;

static void ledger_turn(struct policy_task *t)
{
	t->only_b--;
}

#include "last.bpf.h"

SCXU_POLICY_DEFINE("last_on", LAST_OPS, .flags = SCX_OPS_ENQ_LAST);

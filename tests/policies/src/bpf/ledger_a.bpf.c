/* SPDX-License-Identifier: GPL-2.0-only */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	u64	turns;
	u64	seal;
	u16	turns_low;
	u32	only_a __default(7);	/* adds one each turn under ledger_a */
} __policy_state;

struct policy_cpu {
	u64	cpu_turns;
} __policy_state;

struct policy_cgroup {
	u64	cgroup_turns;
} __policy_state;

struct policy_global {
	u64	all_turns;
} __policy_state;

static void ledger_turn(struct policy_task *t)
{
	t->only_a++;
}

#include "ledger.bpf.h"

SCXU_POLICY_DEFINE("ledger_a", LEDGER_OPS);

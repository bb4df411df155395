/* SPDX-License-Identifier: GPL-2.0-only */
#include <scx_upgrade/policy.bpf.h>

struct inner {
	u32	count;
	u8	bytes[3];
};

struct policy_task {
	u8	flag __default(1);
	u16	turns_low;
	s32	only_b __default(-5);	/* takes one each turn under ledger_b */
	u64	seal;
	u8	marks[5] __default(0xaa);
	struct inner inner;
	u64	turns;
} __policy_state;

struct policy_cpu {
	u32	cpu_mark __default(3);
	u64	cpu_turns;
} __policy_state;

struct policy_cgroup {
	u8	cgroup_mark __default(9);
	u64	cgroup_turns;
} __policy_state;

struct policy_global {
	u16	global_marks[40] __default(11);
	u64	all_turns;
} __policy_state;

static void ledger_turn(struct policy_task *t)
{
	t->only_b--;
	t->inner.count = -t->only_b - 5;
}

#include "ledger.bpf.h"

SCXU_POLICY_DEFINE("ledger_b", LEDGER_OPS);

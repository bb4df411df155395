/* SPDX-License-Identifier: GPL-2.0-only */
/* The first: where all values come from. */
#include <scx_upgrade/policy.bpf.h>

struct inner {
	u16	low;
	s32	high;
};

struct policy_task {
	u32	runs;
	s16	small;
	u32	wide;
	u64	time_us __unit(us);
	s32	old_name;
	u16	list[4];
	struct inner inner;
} __policy_state;

struct policy_cgroup {
	u32	touches;
	u32	weight_pct __default(100);
	u64	used_us __unit(us) __default(7000001);
	s16	bias __default(-3);
} __policy_state;

struct policy_cpu {
	u32	turns;
} __policy_state;

struct policy_global {
	u32	turns;
	u64	seen_us __unit(us) __default(123456789);
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	u32 i;

	if (!t->runs++) {
		t->small = -(s32)(pid % 30000);
		t->wide = pid * 70001;
		t->time_us = (u64)pid << 33;
		t->old_name = -(s32)pid;
		for (i = 0; i < 4; i++)
			t->list[i] = pid + i;
		t->inner.low = pid;
		t->inner.high = -7 * (s32)pid;
	}
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_1", CHAIN_OPS);

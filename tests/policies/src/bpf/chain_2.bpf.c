/* SPDX-License-Identifier: GPL-2.0-only */
/* Widens: s16 to s64, u32 to u64; the array grows, and its elements too. */
#include <scx_upgrade/policy.bpf.h>

struct inner {
	u16	low;
	s32	high;
};

struct policy_task {
	u32	list[6] __default(9);
	s64	small;
	struct inner inner;
	u64	wide;
	u64	time_us __unit(us);
	s32	old_name;
	u32	runs;
} __policy_state;

struct policy_cgroup {
	u32	touches;
	s16	bias;
	u64	weight_pct;
	u64	used_us __unit(us);
} __policy_state;

struct policy_cpu {
	u64	turns;
} __policy_state;

struct policy_global {
	u64	turns;
	u64	seen_us __unit(us);
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	t->runs++;
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_2", CHAIN_OPS);

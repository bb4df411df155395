/* SPDX-License-Identifier: GPL-2.0-only */
/* Renames, and changes a unit. */
#include <scx_upgrade/policy.bpf.h>

struct inner {
	u16	low;
	s32	high;
};

struct policy_task {
	u32	runs;
	s32	new_name __from(old_name);
	u64	time_ns __from(time_us) __scale(1000) __unit(ns);
	s64	small;
	u64	wide;
	u32	list[6];
	struct inner inner;
} __policy_state;

struct policy_cgroup {
	u32	touches;
	u64	used_ns __from(used_us) __scale(1000) __unit(ns);
	s64	bias;
	u64	weight_pct;
} __policy_state;

struct policy_cpu {
	u64	turns;
	u8	mark __default(0x5a);
} __policy_state;

struct policy_global {
	u64	turns;
	u64	seen_ns __from(seen_us) __scale(1000) __unit(ns);
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	t->runs++;
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_3", CHAIN_OPS);

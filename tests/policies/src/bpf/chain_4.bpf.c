/* SPDX-License-Identifier: GPL-2.0-only */
/* Narrows with saturation, shrinks the array, changes a nested struct inside. */
#include <scx_upgrade/policy.bpf.h>

struct inner {
	s64	high;
	u8	added;
	u16	low;
};

struct policy_task {
	u32	runs;
	s8	small __saturate;
	u16	wide __saturate;
	u64	time_ns __unit(ns);
	s32	new_name;
	u32	list[2];
	struct inner inner;
} __policy_state;

struct policy_cgroup {
	u32	touches;
	u8	weight_pct __saturate;
	s64	bias;
	u64	used_ns __unit(ns);
} __policy_state;

struct policy_cpu {
	u64	turns;
	u8	mark;
} __policy_state;

struct policy_global {
	u64	turns;
	u64	seen_ns __unit(ns);
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	t->runs++;
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_4", CHAIN_OPS);

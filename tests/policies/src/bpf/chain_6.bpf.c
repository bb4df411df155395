/* SPDX-License-Identifier: GPL-2.0-only */
/* Closes the circle: back to the names and types of the first, which are new columns by now or converted again. */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	s64	shifted;
	u32	runs;
	u32	wide __default(17);
	bool	flag;
} __policy_state;

struct policy_cgroup {
	u32	touches;
	u32	marks[3];
	u64	used_ns __unit(ns);
	u16	fresh __default(77);
} __policy_state;

struct policy_cpu {
	u64	turns;
	u32	list[8] __default(4);
} __policy_state;

struct policy_global {
	u64	turns;
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	t->runs++;
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_6", CHAIN_OPS);

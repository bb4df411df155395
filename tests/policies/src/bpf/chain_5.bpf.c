/* SPDX-License-Identifier: GPL-2.0-only */
/* Drops most, adds, rescales with an offset, and has a union and a bool. */
#include <scx_upgrade/policy.bpf.h>

union any {
	u64	number;
	u8	bytes[8];
};

struct policy_task {
	union any any;
	s64	shifted __from(new_name) __scale(-3/2+1000);
	bool	flag __default(true);
	u32	runs;
	u8	fresh[21] __default(0xc3);
} __policy_state;

struct policy_cgroup {
	u32	touches;
	u64	used_ns __unit(ns);
	u32	marks[5] __default(9);
} __policy_state;

struct policy_cpu {
	u64	turns;
} __policy_state;

struct policy_global {
	u64	turns;
	u32	seen_ms __from(seen_ns) __scale(1/1000000) __unit(ms) __saturate;
} __policy_state;

static void chain_turn(struct policy_task *t, u32 pid)
{
	t->runs++;
}

#include "chain.bpf.h"

SCXU_POLICY_DEFINE("chain_5", CHAIN_OPS);

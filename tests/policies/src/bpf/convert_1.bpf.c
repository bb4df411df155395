/* SPDX-License-Identifier: GPL-2.0-only */
/* The first: where all values come from. */
#include <scx_upgrade/policy.bpf.h>
#include "convert_types.bpf.h"

struct policy_task {
	u32			runs;
	u32			tally;
	struct histogram	history;
	struct pair		pair;
	u8			odd[3];
	u8			beat;
} __policy_state;

struct policy_cgroup {
	struct pair		share;
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_cpu {
	struct histogram	load;
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_global {
	struct digest		digest;
	u32			seen;
	u32			turns;
} __policy_state;

static void convert_task(struct policy_task *t, u32 pid)
{
	u32 i;

	t->tally++;
	if (t->runs)
		return;
	t->tally = pid * 3;
	for (i = 0; i < 8; i++)
		t->history.bucket[i] = pid % (i + 5) * 1000;
	t->pair.low = -(s32)pid;
	t->pair.high = pid;
	t->pair.tag = pid >> 3;
	for (i = 0; i < 3; i++)
		t->odd[i] = pid + i;
}

static void convert_cgroup(struct policy_cgroup *g, u64 id)
{
	g->turns++;
	if (g->seen)
		return;
	g->share.low = id * 7;
	g->share.high = id;
	g->share.tag = 0xc9;
	g->seen = 1;
}

static void convert_cpu(struct policy_cpu *c, u32 cpu)
{
	u32 i;

	c->turns++;
	if (c->seen)
		return;
	for (i = 0; i < 8; i++)
		c->load.bucket[i] = (cpu + 1) * (i + 3);
	c->seen = 1;
}

static void convert_global(struct policy_global *g)
{
	u32 i;

	g->turns++;
	if (g->seen)
		return;
	for (i = 0; i < 8; i++)
		g->digest.word[i] = (i + 1) * 0x0123456789abcdULL;
	g->seen = 1;
}

#include "convert.bpf.h"

SCXU_POLICY_DEFINE("convert_1", CONVERT_OPS);

/* SPDX-License-Identifier: GPL-2.0-only */
/* A conversion without an inverse; what else the second made it keeps, without its tags. */
#include <scx_upgrade/policy.bpf.h>
#include "convert_types.bpf.h"

struct policy_task {
	u32			runs;
	struct split		tally;
	u8			level __from(average) __convert(level_of);
	u64			packed;
	u8			beat;
} __policy_state;

struct policy_cgroup {
	u64			share;
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_cpu {
	u8			level __from(load) __convert(level_of) __default(3);
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_global {
	u32			seen;
	u32			turns;
} __policy_state;

SCXU_CONVERSION(level_of, u64, u8)
{
	u64 rest = *from;

	*to = 1;
	while (rest && can_loop) {
		rest >>= 1;
		(*to)++;
	}
}

SCXU_CONVERSIONS(level_of);

static void convert_task(struct policy_task *t, u32 pid)
{
	if (!++t->tally.low)
		t->tally.high++;
}

static void convert_cgroup(struct policy_cgroup *g, u64 id)
{
	g->turns++;
}

static void convert_cpu(struct policy_cpu *c, u32 cpu)
{
	c->turns++;
}

static void convert_global(struct policy_global *g)
{
	g->turns++;
}

#include "convert.bpf.h"

SCXU_POLICY_DEFINE("convert_3", CONVERT_OPS);

/* SPDX-License-Identifier: GPL-2.0-only */
/* Makes other types of them, and can make the old ones again. */
#include <scx_upgrade/policy.bpf.h>
#include "convert_types.bpf.h"

struct policy_task {
	u8			beat;
	u16			odd[4] __convert(odd_forth) __inverse(odd_back) __default(77);
	u64			average __from(history) __convert(average_of) __inverse(history_of);
	u64			packed __from(pair) __convert(pack) __inverse(unpack);
	struct split		tally __convert(split) __inverse(join);
	u32			runs;
} __policy_state;

struct policy_cgroup {
	u64			share __convert(pack) __inverse(unpack);
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_cpu {
	u64			load __convert(average_of) __inverse(history_of);
	u32			seen;
	u32			turns;
} __policy_state;

struct policy_global {
	struct digest		turned __from(digest) __convert(turn) __inverse(turn_back);
	u32			seen;
	u32			turns;
} __policy_state;

SCXU_CONVERSION(average_of, struct histogram, u64)
{
	u64 sum = 0, count = 0;
	u32 i;

	bpf_for(i, 0, 8) {
		sum += (u64)from->bucket[i & 7] << (i & 7);
		count += from->bucket[i & 7];
	}
	*to = count ? sum * 100 / count : 0;
}

/* The first bucket stays as the older version left it. */
SCXU_CONVERSION(history_of, u64, struct histogram)
{
	u32 i;

	for (i = 1; i < 8; i++)
		to->bucket[i] = *from >> (i * 4);
}

SCXU_CONVERSION(pack, struct pair, u64)
{
	*to = (u64)(u32)from->low << 32 | (u32)from->high << 8 | from->tag;
}

SCXU_CONVERSION(unpack, u64, struct pair)
{
	to->low = *from >> 32;
	to->high = *from >> 8;
	to->tag = *from;
}

SCXU_CONVERSION(split, u32, struct split)
{
	to->low = *from;
	to->high = *from >> 16;
}

SCXU_CONVERSION(join, struct split, u32)
{
	*to = (u32)from->high << 16 | from->low;
}

/* The fourth element starts as the default and is not written. */
SCXU_CONVERSION(odd_forth, u8[3], u16[4])
{
	u32 i;

	for (i = 0; i < 3; i++)
		(*to)[i] = (*from)[i] * 257 + (*to)[3];
}

SCXU_CONVERSION(odd_back, u16[4], u8[3])
{
	u32 i;

	for (i = 0; i < 3; i++)
		(*to)[i] = (*from)[i] ^ 0x55;
}

SCXU_CONVERSION(turn, struct digest, struct digest)
{
	u32 i;

	for (i = 0; i < 8; i++)
		to->word[i] = ~from->word[(i + 1) & 7];
}

SCXU_CONVERSION(turn_back, struct digest, struct digest)
{
	u32 i;

	for (i = 0; i < 8; i++)
		to->word[(i + 1) & 7] = ~from->word[i];
}

SCXU_CONVERSIONS(average_of, history_of, pack, unpack, split, join, odd_forth, odd_back, turn, turn_back);

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

SCXU_POLICY_DEFINE("convert_2", CONVERT_OPS);

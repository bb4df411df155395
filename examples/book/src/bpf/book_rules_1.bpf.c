/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state, version 1: one column for each rule. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: nested */
struct turns {
	u32	count;
	u32	longest_us;
};
/* ANCHOR_END: nested */

/* ANCHOR: all */
enum mood { MOOD_CALM, MOOD_BUSY };

union tag {
	u32	word;
	u8	bytes[4];
};

struct policy_task {
	u64		vtime;
	u32		moved;
	u32		dropped;
	u64		renamed;
	u32		widened;
	u64		narrowed;
	u64		slice_us __unit(us);
	u16		grown[2];
	u16		shrunk[4];
	struct turns	turns;
	enum mood	mood;
	union tag	tag;
} __policy_state;
/* ANCHOR_END: all */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_rules", BOOK_OPS);

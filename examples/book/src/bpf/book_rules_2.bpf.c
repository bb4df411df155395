/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state, version 2: what each rule makes of version 1's columns. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: nested */
struct turns {
	u64	count;			/* wider */
	u32	shortest_us;		/* new: zero */
	u32	longest_us;		/* moved */
};
/* ANCHOR_END: nested */

/* ANCHOR: all */
enum mood { MOOD_CALM, MOOD_BUSY, MOOD_FRANTIC };

union tag {
	u32	word;
	u8	bytes[4];
};

struct policy_task {
	u32		moved;					/* stands elsewhere: carried */
	u64		vtime;					/* same name, same type: carried */
	u32		added __default(100);			/* new: 100 */
	u64		better_name __from(renamed);		/* carried, under a new name */
	u64		widened;				/* was u32: every value survives */
	u32		narrowed __saturate;			/* was u64: at most 4294967295 */
	u64		slice_ns __from(slice_us) __scale(1000) __unit(ns);	/* v * 1000 */
	u16		grown[4] __default(7);			/* the new elements are 7 */
	u16		shrunk[2];				/* the first two are kept */
	struct turns	turns;					/* field by field, by name */
	enum mood	mood;					/* as an integer */
	union tag	tag;					/* as bytes */
} __policy_state;
/* ANCHOR_END: all */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_rules", BOOK_OPS);

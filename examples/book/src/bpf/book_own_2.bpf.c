/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state: a conversion of the author's own, and its inverse. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: all */
struct histogram { u32 bucket[8]; };		/* what the version before had */

struct policy_task {
	u64	avg_us __from(histogram) __convert(avg_from_hist) __inverse(hist_from_avg);
} __policy_state;

SCXU_CONVERSION(avg_from_hist, struct histogram, u64)
{
	u64 sum = 0, count = 0;
	u32 i;

	bpf_for(i, 0, 8) {
		sum += (u64)from->bucket[i & 7] << i;
		count += from->bucket[i & 7];
	}
	if (count)
		*to = sum / count;
}

SCXU_CONVERSION(hist_from_avg, u64, struct histogram)
{
	u32 i, at = 0;

	bpf_for(i, 0, 8) {
		to->bucket[i & 7] = 0;
		if (*from >> i)
			at = i;
	}
	to->bucket[at & 7] = 1;
}

SCXU_CONVERSIONS(avg_from_hist, hist_from_avg);
/* ANCHOR_END: all */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_own", BOOK_OPS);

/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state: what the conversion of version 2 begins with. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: all */
struct histogram {
	u32	bucket[8];		/* turns of 2^i us */
};

struct policy_task {
	struct histogram histogram;
} __policy_state;
/* ANCHOR_END: all */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_own", BOOK_OPS);

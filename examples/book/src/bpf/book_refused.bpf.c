/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state: changes of version 1's columns that have no rule, and are refused. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: all */
struct policy_task {
	u32	vtime;				/* narrower, without __saturate */
	u64	slice_us __unit(ms);		/* another unit, without __scale */
	u64	tag;				/* a union made an integer */
} __policy_state;
/* ANCHOR_END: all */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_refused", BOOK_OPS);

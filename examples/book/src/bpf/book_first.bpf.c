/* SPDX-License-Identifier: GPL-2.0-only */
/* The chapter on state: what a declaration looks like. */
#include <scx_upgrade/policy.bpf.h>

/* ANCHOR: state */
struct policy_task {
	u64	vtime;
	u32	credit_pct __default(100);
	u64	slice_ns __from(slice_us) __scale(1000) __unit(ns);
} __policy_state;
/* ANCHOR_END: state */

#include "book_ops.bpf.h"

SCXU_POLICY_DEFINE("book_first", BOOK_OPS);

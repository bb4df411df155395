/* SPDX-License-Identifier: GPL-2.0-only */
/* Version 2: who slept is owed a slice, and no more. */
#include "dozy.bpf.h"

/* ANCHOR: place */
static __always_inline u64 dozy_place(struct policy_task *t, u64 now, u64 enq_flags)
{
	return scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, slice_ns));
}
/* ANCHOR_END: place */

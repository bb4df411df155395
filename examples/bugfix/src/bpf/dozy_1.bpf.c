/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Version 1, with the bug: a task goes on from the virtual time that it had when it fell asleep. While it slept the others'
 * went on; so it has the CPU to itself until it has caught up, and they wait for as long as it slept.
 */
#include "dozy.bpf.h"

/* ANCHOR: place */
static __always_inline u64 dozy_place(struct policy_task *t, u64 now, u64 enq_flags)
{
	if (!t->vtime)
		t->vtime = now;
	return t->vtime;
}
/* ANCHOR_END: place */

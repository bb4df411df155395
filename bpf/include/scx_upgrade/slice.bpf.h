/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slices, and the time that a task has run.
 *
 * A task that is taken over while it runs was seen to begin by the policy before: its last_run_at_ns is carried, if that
 * one kept it; if not it is 0, and its first turn counts for nothing.
 */
#ifndef __SCX_UPGRADE_SLICE_BPF_H
#define __SCX_UPGRADE_SLICE_BPF_H

#include <scx/common.bpf.h>

#define NSEC_PER_USEC_ULL	1000ULL
#define NSEC_PER_MSEC_ULL	(1000 * NSEC_PER_USEC_ULL)
#define NSEC_PER_SEC_ULL	(1000 * NSEC_PER_MSEC_ULL)

/* Since @since, which 0 stands for never. Clocks of CPUs may differ a little: no time is below zero. */
static __always_inline u64 ns_since(u64 since, u64 now)
{
	s64 passed = now - since;

	return since && passed > 0 ? passed : 0;
}

/*
 * The slice of a task of @weight: one of little weight has a shorter turn as well, so that who waits for it waits less;
 * but no shorter than @min, and no longer than @slice.
 */
static __always_inline u64 slice_of_weight(u64 slice, u64 min, u64 weight)
{
	u64 part = slice * weight / 100;

	if (part > slice)
		return slice;
	return part < min ? min : part;
}

#endif /* __SCX_UPGRADE_SLICE_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* Moving averages. */
#ifndef __SCX_UPGRADE_AVERAGE_BPF_H
#define __SCX_UPGRADE_AVERAGE_BPF_H

#include <scx_upgrade/lib/slice.bpf.h>

/* The newest value counts a quarter. Rounds toward the newest value, so the average of a constant reaches the constant. */
static __always_inline u64 scxu_average(u64 old, u64 new)
{
	return new > old ? old + (new - old + 3) / 4 : old - (old - new + 3) / 4;
}

/* The moving average of an event's frequency, per second. The event last happened @passed ns ago. */
static __always_inline u64 scxu_average_freq(u64 old, u64 passed)
{
	return scxu_average(old, SCXU_NSEC_PER_SEC / (passed ?: 1));
}

/*
 * @value after @passed ns of decay by half in each @half_life ns. Within one half-life the decay is linear, at most 6 % above
 * the exact curve.
 */
static __always_inline u64 scxu_decay(u64 value, u64 passed, u64 half_life)
{
	u64 halves = passed / half_life;

	if (halves > 63)
		return 0;
	value >>= halves;
	return value - (value >> 1) * (passed % half_life) / half_life;
}

#endif /* __SCX_UPGRADE_AVERAGE_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A timer for work that must happen even when every CPU is idle and the kernel calls no op.
 *
 * A policy includes this header and defines
 *
 *	u64 policy_timer(u64 now)	does the work; returns the ns until the next call, or 0 to stop
 *
 * and calls scxu_timer_start() in any op that leaves work. policy_timer() then runs within SCXU_TIMER_MAX_NS, from a BPF
 * timer, without a lock of the scheduler. The timer stops while another policy is active. scxu_timer_start() starts it again.
 */
#ifndef __SCX_UPGRADE_TIMER_BPF_H
#define __SCX_UPGRADE_TIMER_BPF_H

#ifdef SCX_UPGRADE_DECLARE
#error "include this in the source that includes policy.bpf.h: it defines a map"
#endif

#include <scx_upgrade/policy.bpf.h>

#define SCXU_TIMER_MAX_NS	(10 * 1000 * 1000ULL)
#define SCXU_TIMER_MIN_NS (100 * 1000ULL)

struct scxu_timer {
	struct bpf_timer	timer;
	u32			armed;
};

/* The SDK pins the map with the policy's slot, so the timer survives the policy's process. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_timer);
} scxu_timer SEC(".maps");

static u64 policy_timer(u64 now);

static __always_inline u64 scxu_timer_delay(u64 wanted)
{
	if (wanted > SCXU_TIMER_MAX_NS)
		return SCXU_TIMER_MAX_NS;
	return wanted < SCXU_TIMER_MIN_NS ? SCXU_TIMER_MIN_NS : wanted;
}

static int scxu_timer_fires(void *map, int *key, struct scxu_timer *timer)
{
	u64 again = scxu_is_active() ? policy_timer(bpf_ktime_get_ns()) : 0;

	if (!again) {
		__sync_lock_test_and_set(&timer->armed, 0);
		/* An op that left work in the meantime saw `armed` set and did not start the timer. So look once more. */
		again = scxu_is_active() ? policy_timer(bpf_ktime_get_ns()) : 0;
		if (!again || __sync_lock_test_and_set(&timer->armed, 1))
			return 0;
	}
	bpf_timer_start(&timer->timer, scxu_timer_delay(again), 0);
	return 0;
}

/* Call it after the work is recorded. */
static __noinline int scxu_timer_start(u64 delay)
{
	u32 zero = 0;
	struct scxu_timer *timer = bpf_map_lookup_elem(&scxu_timer, &zero);

	if (!timer || *(volatile u32 *)&timer->armed || __sync_lock_test_and_set(&timer->armed, 1))
		return 0;
	/* Fails with -EBUSY from the second call on, which does no harm. */
	bpf_timer_init(&timer->timer, &scxu_timer, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&timer->timer, scxu_timer_fires);
	bpf_timer_start(&timer->timer, scxu_timer_delay(delay), 0);
	return 0;
}

#endif /* __SCX_UPGRADE_TIMER_BPF_H */

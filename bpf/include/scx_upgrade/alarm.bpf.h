/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An alarm: something is to be done at a time even when every CPU is idle, and so no op is called.
 *
 * A policy includes this and defines
 *
 *	u64 policy_alarm(u64 now)	do it; after how many ns again, 0 if nothing is left to be done
 *
 * and calls alarm_start() in any op that leaves something to be done. policy_alarm() runs in a timer, at most
 * ALARM_LATEST_NS after that, and holds no lock of the scheduler's. Where the policy is no longer the one that runs, the
 * alarm stops; alarm_start() sets it again when the policy is back.
 */
#ifndef __SCX_UPGRADE_ALARM_BPF_H
#define __SCX_UPGRADE_ALARM_BPF_H

#include <scx_upgrade/policy.bpf.h>

#define ALARM_LATEST_NS	(10 * 1000 * 1000ULL)
#define ALARM_SOONEST_NS (100 * 1000ULL)

struct scx_alarm {
	struct bpf_timer	timer;
	u32			armed;
};

/* Pinned with the policy's slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scx_alarm);
} scx_alarm SEC(".maps");

static u64 policy_alarm(u64 now);

static __always_inline u64 alarm_delay(u64 wanted)
{
	if (wanted > ALARM_LATEST_NS)
		return ALARM_LATEST_NS;
	return wanted < ALARM_SOONEST_NS ? ALARM_SOONEST_NS : wanted;
}

static int alarm_rings(void *map, int *key, struct scx_alarm *alarm)
{
	u64 again = policy_is_active() ? policy_alarm(bpf_ktime_get_ns()) : 0;

	if (!again) {
		__sync_lock_test_and_set(&alarm->armed, 0);
		/* Who left something to be done in between has seen that it was armed. */
		again = policy_is_active() ? policy_alarm(bpf_ktime_get_ns()) : 0;
		if (!again || __sync_lock_test_and_set(&alarm->armed, 1))
			return 0;
	}
	bpf_timer_start(&alarm->timer, alarm_delay(again), 0);
	return 0;
}

/* After what is to be done has been noted. */
static __noinline int alarm_start(u64 delay)
{
	u32 zero = 0;
	struct scx_alarm *alarm = bpf_map_lookup_elem(&scx_alarm, &zero);

	if (!alarm || *(volatile u32 *)&alarm->armed || __sync_lock_test_and_set(&alarm->armed, 1))
		return 0;
	/* The second time the kernel says that it is initialised already. */
	bpf_timer_init(&alarm->timer, &scx_alarm, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&alarm->timer, alarm_rings);
	bpf_timer_start(&alarm->timer, alarm_delay(delay), 0);
	return 0;
}

#endif /* __SCX_UPGRADE_ALARM_BPF_H */

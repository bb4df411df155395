/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Has a timer of its own, which counts, and which kicks a CPU each time: also while another policy is active. It leaves all else
 * to the kernel.
 */
#include <scx_upgrade/policy.bpf.h>

#define PERIOD_NS	(5 * 1000 * 1000ULL)

/* The timer is not the value itself, but an element of an array in it. */
struct ticking_clock {
	u64	rings;
	struct {
		struct bpf_timer timer;
	} hands[1];
	u32	started;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ticking_clock);
} ticking_clock SEC(".maps");

static int ticking_rings(void *map, int *key, struct ticking_clock *clock)
{
	__sync_fetch_and_add(&clock->rings, 1);
	scx_bpf_kick_cpu(bpf_get_smp_processor_id(), SCX_KICK_PREEMPT);
	bpf_timer_start(&clock->hands[0].timer, PERIOD_NS, 0);
	return 0;
}

void BPF_STRUCT_OPS(ticking_running, struct task_struct *p)
{
	u32 zero = 0;
	struct ticking_clock *clock = bpf_map_lookup_elem(&ticking_clock, &zero);

	if (!clock || *(volatile u32 *)&clock->started || __sync_lock_test_and_set(&clock->started, 1))
		return;
	bpf_timer_init(&clock->hands[0].timer, &ticking_clock, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&clock->hands[0].timer, ticking_rings);
	bpf_timer_start(&clock->hands[0].timer, PERIOD_NS, 0);
}

SCXU_POLICY_DEFINE("ticking", .running = (void *)ticking_running);

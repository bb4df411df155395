/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_fair 2: credit goes to tasks that use their turns sparingly. It remembers each task's last four turns and
 * gives more credit, up to a limit of its own, to one whose longest of them was short. The state is in another order
 * than in version 1, nr_runs is gone, recent_us and credit_pct are new.
 */
#include <scx_upgrade/policy.bpf.h>

#define FAIR_TURNS	4

struct policy_task {
	u32	credit_pct __default(100);	/* of a slice that it may have slept and still run first */
	u64	last_run_at __momentary __timestamp;
	u64	wakeup_freq;
	u32	recent_us[FAIR_TURNS];		/* the last turns on the CPU, newest first, us */
	u64	avg_runtime;
	u64	vtime;
	u64	last_woke_at __timestamp;
} __policy_state;

#include "fair.bpf.h"

/* Largest and smallest credit, in per cent of a slice. */
const volatile u32 credit_max_pct = 200;
const volatile u32 credit_min_pct = 50;

static u64 fair_credit(struct policy_task *t)
{
	return slice_ns * t->credit_pct / 100;
}

static void fair_ran(struct policy_task *t, u64 used)
{
	u32 longest = used / 1000, half_slice = slice_ns / 2000;
	u32 recent[FAIR_TURNS], i, credit = t->credit_pct;

	recent[0] = longest;
	for (i = 1; i < FAIR_TURNS; i++) {
		recent[i] = t->recent_us[i - 1];
		if (recent[i] > longest)
			longest = recent[i];
	}
	for (i = 0; i < FAIR_TURNS; i++)
		t->recent_us[i] = recent[i];

	if (longest <= half_slice && credit < credit_max_pct)
		t->credit_pct = credit + 1;
	else if (longest > half_slice && credit > credit_min_pct)
		t->credit_pct = credit - 1;
}

SCXU_POLICY_DEFINE("scx_fair", FAIR_OPS);

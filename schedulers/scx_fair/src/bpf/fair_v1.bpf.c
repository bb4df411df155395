/* SPDX-License-Identifier: GPL-2.0-only */
/* scx_fair 1: every task gets the same credit for having slept. */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	u64	vtime;		/* ns of run time, scaled to FAIR_WEIGHT */
	u64	avg_runtime;	/* ns per turn on the CPU, decaying */
	u64	wakeup_freq;	/* per second, decaying */
	u64	last_woke_at __timestamp;
	u64	last_run_at __momentary __timestamp;
	u64	nr_runs;	/* turns on the CPU */
} __policy_state;

#include "fair.bpf.h"

static u64 fair_credit(struct policy_task *t)
{
	return slice_ns;
}

static void fair_ran(struct policy_task *t, u64 used)
{
	t->nr_runs++;
}

SCXU_POLICY_DEFINE("scx_fair", FAIR_OPS);

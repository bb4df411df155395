/* SPDX-License-Identifier: GPL-2.0-only */
/* Rescales, widens, narrows, renames and adds a column. */
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	u64	turns;
	u64	total_ns __from(total_us) __scale(1000) __unit(ns);
	u64	wide;
	u16	narrow __saturate;
	s64	new_name __from(old_name);
	u32	added __default(100);
} __policy_state;

struct policy_cgroup {
	u64	turns;
	u64	share;
	u64	used_ns __from(used_us) __scale(1000) __unit(ns);
} __policy_state;

#include "sweep.bpf.h"

SCXU_POLICY_DEFINE("sweep_2", SWEEP_OPS);

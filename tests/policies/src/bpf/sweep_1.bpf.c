/* SPDX-License-Identifier: GPL-2.0-only */
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	u64	turns;
	u32	total_us __unit(us) __default(21);
	u32	wide __default(22);
	u32	narrow __default(70000);
	s32	old_name __default(-24);
} __policy_state;

struct policy_cgroup {
	u64	turns;
	u32	share __default(100);
	u64	used_us __unit(us) __default(7);
} __policy_state;

#include "sweep.bpf.h"

SCXU_POLICY_DEFINE("sweep_1", SWEEP_OPS);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Weight and limits of a cgroup, read from the kernel's own structures. The kernel calls cgroup_init before a swap, for the
 * earlier policy. A policy that takes over is told of later changes only, so it cannot rely on the ops.
 */
#ifndef __SCX_UPGRADE_CGROUP_BPF_H
#define __SCX_UPGRADE_CGROUP_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* Up to Linux 6.16 the weight is a member of the task_group itself. */
struct task_group___weight {
	u32 scx_weight;
} __attribute__((preserve_access_index));

#define SCXU_CGROUP_DEFAULT_WEIGHT	100
/* No helper looks at cgroups deeper than this. */
#define SCXU_CGROUP_LEVELS		32

/* The task_group of @cgrp; NULL if its cpu controller is not enabled. */
static __always_inline struct task_group *scxu_cgroup_task_group(struct cgroup *cgrp)
{
	u32 at = bpf_core_field_offset(struct cgroup, subsys) +
		 bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id) * sizeof(void *);
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)cgrp + at);
	return css ? (void *)css - bpf_core_field_offset(struct task_group, css) : NULL;
}

/* cpu.weight of @cgrp: 1 to 10000. */
static __always_inline u32 scxu_cgroup_weight(struct cgroup *cgrp)
{
	struct task_group *tg = scxu_cgroup_task_group(cgrp);
	u32 weight = 0;

	if (!tg)
		return SCXU_CGROUP_DEFAULT_WEIGHT;
	if (bpf_core_field_exists(tg->scx))
		weight = BPF_CORE_READ(tg, scx.weight);
	else if (bpf_core_field_exists(((struct task_group___weight *)tg)->scx_weight))
		weight = BPF_CORE_READ((struct task_group___weight *)tg, scx_weight);
	return weight ?: SCXU_CGROUP_DEFAULT_WEIGHT;
}

/* The result of scxu_cgroup_quota() for a cgroup without a limit. */
#define SCXU_CGROUP_NO_QUOTA		(~0ULL)

/*
 * cpu.max of @cgrp: how many ns all its tasks together may run in each *@period of ns. sched_ext has a copy since Linux 6.17.
 * Before, this reads the fair class's. The limits of its ancestors are not included.
 */
static __always_inline u64 scxu_cgroup_quota(struct cgroup *cgrp, u64 *period)
{
	struct task_group *tg = scxu_cgroup_task_group(cgrp);
	u64 quota;

	if (!tg)
		return SCXU_CGROUP_NO_QUOTA;
	if (bpf_core_field_exists(tg->scx.bw_quota_us)) {
		quota = BPF_CORE_READ(tg, scx.bw_quota_us);
		if (quota == SCXU_CGROUP_NO_QUOTA)
			return quota;
		quota *= 1000;
		*period = BPF_CORE_READ(tg, scx.bw_period_us) * 1000;
	} else if (bpf_core_field_exists(tg->cfs_bandwidth)) {
		quota = BPF_CORE_READ(tg, cfs_bandwidth.quota);
		*period = BPF_CORE_READ(tg, cfs_bandwidth.period);
	} else {
		return SCXU_CGROUP_NO_QUOTA;
	}
	return quota && *period ? quota : SCXU_CGROUP_NO_QUOTA;
}

#endif /* __SCX_UPGRADE_CGROUP_BPF_H */

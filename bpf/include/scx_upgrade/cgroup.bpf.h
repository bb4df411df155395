/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel knows of a cgroup, read where it stands. A policy that takes over is told of changes from then on, not of
 * what was set before: cgroup_init has run already, for another.
 */
#ifndef __SCX_UPGRADE_CGROUP_BPF_H
#define __SCX_UPGRADE_CGROUP_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* Until Linux 6.16 the weight stands in the task_group itself. */
struct task_group___weight {
	u32 scx_weight;
} __attribute__((preserve_access_index));

#define CGROUP_DEFAULT_WEIGHT	100
/* Deeper than this no helper looks. */
#define CGROUP_LEVELS		32

/* The scheduler's side of @cgrp; NULL if its cpu controller is not enabled. */
static __always_inline struct task_group *cgroup_task_group(struct cgroup *cgrp)
{
	u32 at = bpf_core_field_offset(struct cgroup, subsys) +
		 bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id) * sizeof(void *);
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), (void *)cgrp + at);
	return css ? (void *)css - bpf_core_field_offset(struct task_group, css) : NULL;
}

/* cpu.weight of @cgrp: 1 to 10000. */
static __always_inline u32 cgroup_weight(struct cgroup *cgrp)
{
	struct task_group *tg = cgroup_task_group(cgrp);
	u32 weight = 0;

	if (!tg)
		return CGROUP_DEFAULT_WEIGHT;
	if (bpf_core_field_exists(tg->scx))
		weight = BPF_CORE_READ(tg, scx.weight);
	else if (bpf_core_field_exists(((struct task_group___weight *)tg)->scx_weight))
		weight = BPF_CORE_READ((struct task_group___weight *)tg, scx_weight);
	return weight ?: CGROUP_DEFAULT_WEIGHT;
}

#endif /* __SCX_UPGRADE_CGROUP_BPF_H */

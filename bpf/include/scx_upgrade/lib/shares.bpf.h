/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shares of nested cgroups. What a task may have is its own weight among those that want to run in its cgroup, times the
 * cgroup's weight among its siblings that have someone who wants to run, and so on up to the root. scxu_share_of() gives that
 * as one weight, so one queue by virtual time keeps the shares of the whole hierarchy.
 *
 *	struct policy_task {
 *		SCXU_SHARES_TASK_COLUMNS;
 *	} __policy_state;
 *
 *	struct policy_cgroup {
 *		SCXU_SHARES_CGROUP_COLUMNS;
 *	} __policy_state;
 *
 *	#include <scx_upgrade/lib/shares.bpf.h>		behind these structs
 *
 *	runnable, enqueue:	scxu_shares_join(p, t)
 *	quiescent:		scxu_shares_leave(p, t)
 *	stopping:		scxu_vtime_of(used * SCXU_SHARES_ONE, scxu_share_of(p, t))
 *	cgroup_set_weight:	scxu_shares_set_weight(cgrp, weight)
 *
 * Weights are the kernel's, read where they stand, since a policy that takes over is not told those that were set before.
 * Who wants to run is counted, and another policy does not count for us: what was counted in an earlier run is void,
 * and each task is counted when it first passes an op that calls scxu_shares_join().
 */
#ifndef __SCX_UPGRADE_SHARES_BPF_H
#define __SCX_UPGRADE_SHARES_BPF_H

#include <scx_upgrade/lib/cgroup.bpf.h>

/* What scxu_share_of() calls a weight of 1. */
#define SCXU_SHARES_ONE	1024ULL
/* How often an exchange is tried that others spoil. */
#define SCXU_SHARES_TRIES	64

/* The weights of what wants to run in a cgroup. */
static __always_inline u32 scxu_shares_busy(struct policy_cgroup *cg)
{
	u64 busy = *(volatile u64 *)&cg->share_busy;

	return busy >> 32 == scxu_run_id() ? (u32)busy : 0;
}

/* Add to it, or take away. 1 if the cgroup has just become busy, -1 if it is so no longer. */
static __noinline int scxu_shares_add(struct policy_cgroup *cg, s32 weight)
{
	u64 old, new, run = scxu_run_id();
	u32 before, i;
	s64 after;

	if (!cg)
		return 0;
	bpf_for(i, 0, SCXU_SHARES_TRIES) {
		old = *(volatile u64 *)&cg->share_busy;
		before = old >> 32 == run ? (u32)old : 0;
		after = (s64)before + weight;
		if (after < 0)
			after = 0;
		new = run << 32 | (u32)after;
		if (__sync_val_compare_and_swap(&cg->share_busy, old, new) == old)
			return !!after - !!before;
	}
	return 0;
}

/* @weight more, or less, wants to run in @cgrp: as far up as someone becomes busy by it, or idle. */
static __noinline int scxu_shares_change(struct cgroup *cgrp, s32 weight)
{
	s32 level = cgrp->level, i;

	bpf_for(i, 0, SCXU_CGROUP_LEVELS) {
		struct policy_cgroup *cg;
		struct cgroup *at;
		int turned;

		if (level < 0)
			break;
		at = bpf_cgroup_ancestor(cgrp, level);
		if (!at)
			break;
		cg = scxu_cgroup_state(at);
		if (!cg) {
			bpf_cgroup_release(at);
			break;
		}
		/* Before anyone can see that it is busy, and take it away again. */
		if (!scxu_shares_busy(cg))
			cg->share_weight = scxu_cgroup_weight(at);
		turned = scxu_shares_add(cg, weight);
		weight = turned * (s32)cg->share_weight;
		bpf_cgroup_release(at);
		if (!turned)
			break;
		level--;
	}
	return 0;
}

/* @p wants to run. Once for each time; calling it again is cheap. */
static __always_inline void scxu_shares_join(struct task_struct *p, struct policy_task *t)
{
	struct cgroup *cgrp;

	if (t->share_gen == scxu_run_id())
		return;
	t->share_gen = scxu_run_id();
	t->share_weight = p->scx.weight;
	cgrp = scx_bpf_task_cgroup(p);
	scxu_shares_change(cgrp, t->share_weight);
	bpf_cgroup_release(cgrp);
}

/* @p no longer does, or goes to another cgroup. */
static __always_inline void scxu_shares_leave(struct task_struct *p, struct policy_task *t)
{
	struct cgroup *cgrp;

	if (t->share_gen != scxu_run_id())
		return;
	t->share_gen = 0;
	cgrp = scx_bpf_task_cgroup(p);
	scxu_shares_change(cgrp, -(s32)t->share_weight);
	bpf_cgroup_release(cgrp);
}

/* The kernel was told another weight for @cgrp. */
static __always_inline void scxu_shares_set_weight(struct cgroup *cgrp, u32 weight)
{
	struct policy_cgroup *cg = scxu_cgroup_state(cgrp), *up = NULL;
	struct cgroup *parent;
	s32 more;

	if (!cg || !scxu_shares_busy(cg) || cgrp->level < 1)
		return;
	more = weight - cg->share_weight;
	cg->share_weight = weight;
	parent = bpf_cgroup_ancestor(cgrp, cgrp->level - 1);
	if (!parent)
		return;
	up = scxu_cgroup_state(parent);
	if (up)
		scxu_shares_add(up, more);
	bpf_cgroup_release(parent);
}

/*
 * The weight of @p in the whole, in SCXU_SHARES_ONE: if there are no cgroups, its own. Cgroups that others join or leave at
 * the moment may count or not.
 */
static __noinline u64 scxu_shares_walk(struct task_struct *p, u64 share)
{
	struct cgroup *cgrp, *at;
	s32 level, i;

	if (!p)
		return share;
	cgrp = scx_bpf_task_cgroup(p);
	level = cgrp->level;
	bpf_for(i, 0, SCXU_CGROUP_LEVELS) {
		struct policy_cgroup *cg;
		u32 busy;

		if (level < 1)
			break;
		at = bpf_cgroup_ancestor(cgrp, level);
		if (!at)
			break;
		cg = scxu_cgroup_state(at);
		busy = cg ? scxu_shares_busy(cg) : 0;
		if (busy)
			share = share * cg->share_weight / busy;
		bpf_cgroup_release(at);
		level--;
	}
	bpf_cgroup_release(cgrp);
	return share ?: 1;
}

/* In an op of @p's own: the kernel says of no other task which cgroup it is in. Elsewhere t->share is the last answer. */
static __always_inline u64 scxu_share_of(struct task_struct *p, struct policy_task *t)
{
	t->share = scxu_shares_walk(p, (t->share_weight ?: p->scx.weight) * SCXU_SHARES_ONE);
	return t->share;
}

#endif /* __SCX_UPGRADE_SHARES_BPF_H */

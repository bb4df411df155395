/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shares of nested cgroups. The share of a task is its weight among the runnable tasks of its cgroup, times the cgroup's
 * weight among its busy siblings, and so on up to the root. A cgroup is busy while a task in it or below it is runnable.
 * scxu_share_of() returns the share as one weight. So one vtime queue keeps the shares of the whole hierarchy.
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
 * Weights come from the kernel's structures, because a policy that takes over is not told of weights that were set before.
 * Runnable tasks are counted, and another policy does not count them. So the counts of an earlier run are void: each task is
 * counted again in the first op that calls scxu_shares_join() for it.
 */
#ifndef __SCX_UPGRADE_SHARES_BPF_H
#define __SCX_UPGRADE_SHARES_BPF_H

#include <scx_upgrade/lib/cgroup.bpf.h>

/* The unit of scxu_share_of(): a weight of 1. */
#define SCXU_SHARES_ONE	1024ULL
/* How often a compare-and-swap is tried that other CPUs interfere with. */
#define SCXU_SHARES_TRIES	64

/* The sum of the weights of the runnable tasks and busy children of a cgroup. */
static __always_inline u32 scxu_shares_busy(struct policy_cgroup *cg)
{
	u64 busy = *(volatile u64 *)&cg->share_busy;

	return busy >> 32 == scxu_run_id() ? (u32)busy : 0;
}

/* Add @weight to the sum. Returns 1 if the cgroup has become busy, -1 if it has become idle, else 0. */
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

/* Add @weight to @cgrp, and update its ancestors as long as each level becomes busy or idle by it. */
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
		/* Set the weight before another CPU can see that the cgroup is busy, and subtract the weight again. */
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

/* @p is runnable. Counts it once; another call is cheap. */
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

/* @p is no longer runnable, or moves to another cgroup. */
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

/* The weight of @cgrp has changed. */
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
 * The share of @p in units of SCXU_SHARES_ONE; without cgroups its own weight. A cgroup that becomes busy or idle at the same
 * time may count or not.
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

/* Only in an op for @p: the kernel returns the cgroup of no other task. Elsewhere t->share has the last result. */
static __always_inline u64 scxu_share_of(struct task_struct *p, struct policy_task *t)
{
	t->share = scxu_shares_walk(p, (t->share_weight ?: p->scx.weight) * SCXU_SHARES_ONE);
	return t->share;
}

#endif /* __SCX_UPGRADE_SHARES_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DSQ groups: one DSQ for each CPU, each LLC or each cgroup, or a single DSQ. User space assigns the base of a group. The id
 * of a member is the base or'ed with the member's index, so an op computes the id without a look-up. The host and the
 * policies include this.
 */
#ifndef __SCX_UPGRADE_QUEUES_BPF_H
#define __SCX_UPGRADE_QUEUES_BPF_H

#include <scx_upgrade/records.bpf.h>

/*
 * number: the index of the cgroup's member in each per-cgroup DSQ group, plus one; 0 if the cgroup has no index, because it
 * is gone or no index was free. wants: the host is to give the cgroup an index as soon as one is free.
 *
 * In a map of its own and not in the cgroup's record, because the index must not wait for a plan.
 */
struct scxu_cgroup_number {
	u32	number;
	u32	wants;
};

SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scxu_cgroup_number);
} scxu_cgroup_numbers SEC(".maps");

/*
 * The initial value of a counter that a loop's condition depends on. The verifier follows a counter that starts as a constant
 * through every iteration, and gives up. It knows nothing about a value from memory, so it sees that all iterations are
 * alike.
 */
static __always_inline u32 scxu_zero(void)
{
	return scxu_host.zero;
}

/*
 * The index of the nearest ancestor that has one. The root cgroup always has: it is the first to get one, and it never goes.
 */
static __noinline u32 scxu_inherited_number(struct cgroup *cgrp)
{
	u32 level = cgrp->level, i, number = 0;

	bpf_for(i, 0, level) {
		struct scxu_cgroup_number *own;
		struct cgroup *ancestor;

		ancestor = bpf_cgroup_ancestor(cgrp, level - 1 - i);
		if (!ancestor)
			break;
		own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, ancestor, 0, 0);
		if (own)
			number = own->number;
		bpf_cgroup_release(ancestor);
		if (number)
			return number - 1;
	}
	return 0;
}

/* The index of @cgrp's member in each per-cgroup DSQ group. */
static __always_inline u32 scxu_cgroup_index(struct cgroup *cgrp)
{
	struct scxu_cgroup_number *own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, cgrp, 0, 0);
	u32 number = own ? *(volatile u32 *)&own->number : 0;

	return likely(number) ? number - 1 : scxu_inherited_number(cgrp);
}

/* Create the members @first to @end - 1 of a group, except those that exist. Only in a program that may sleep. */
static __noinline int scxu_create_members(u64 base, u32 first, u32 end)
{
	u32 i;
	int ret;

	bpf_for(i, first, end) {
		ret = scx_bpf_create_dsq(base | i, -1);
		if (ret && ret != -EEXIST)
			return ret;
	}
	return 0;
}

/*
 * Count the cgroups. With @number it also gives each cgroup an index, which only a directly attached policy does. There no
 * cgroup gives its index back, and a later cgroup shares the DSQs of its nearest ancestor.
 */
static __noinline int scxu_count_cgroups(bool number)
{
	struct cgroup_subsys_state *pos;
	struct cgroup *root;
	u32 count = scxu_zero();

	root = bpf_cgroup_from_id(1);
	if (!root)
		return -ENOENT;
	bpf_rcu_read_lock();
	bpf_for_each(css, pos, &root->self, BPF_CGROUP_ITER_DESCENDANTS_PRE) {
		struct cgroup *cgrp = pos->cgroup;
		struct scxu_cgroup_number *own;

		if (!cgrp || count >= SCX_UPGRADE_MAX_CGROUPS)
			continue;
		count++;
		if (!number)
			continue;
		own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (own)
			own->number = count;
	}
	bpf_rcu_read_unlock();
	bpf_cgroup_release(root);
	return count;
}

/* Create the DSQs of a directly attached policy. */
static __always_inline int scxu_create_direct_queues(const volatile struct scxu_dsq_group *groups)
{
	u32 i, cgroups = scxu_zero();
	int ret;

	bpf_for(i, 0, SCX_UPGRADE_MAX_QUEUES) {
		const volatile struct scxu_dsq_group *group = &groups[i & (SCX_UPGRADE_MAX_QUEUES - 1)];
		u32 members = group->members;

		if (!group->base)
			break;
		if (group->per_cgroup) {
			if (!cgroups) {
				ret = scxu_count_cgroups(true);
				if (ret < 0)
					return ret;
				cgroups = ret;
				scxu_host.cgroup_members = cgroups;
			}
			members = cgroups;
		}
		ret = scxu_create_members(group->base, 0, members);
		if (ret)
			return ret;
	}
	return 0;
}

#endif /* __SCX_UPGRADE_QUEUES_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Queues: DSQ groups, one for each CPU, each LLC, each cgroup, or a single one. The id of a member is the
 * group's, which user space gives, or'ed with its index, so that an op finds it without asking anyone. Included by the
 * host and by policies.
 */
#ifndef __SCX_UPGRADE_QUEUES_BPF_H
#define __SCX_UPGRADE_QUEUES_BPF_H

#include <scx_upgrade/records.bpf.h>

/*
 * The number of a cgroup, plus one: the index of its member in each per-cgroup DSQ group. 0 where it has none, because it
 * is gone or none was free. `wants` says that it is to have one as soon as there is.
 *
 * A map of its own and not part of the cgroup's record: a number must not wait for a plan to be applied.
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
 * Where a counter begins that decides something inside a loop: the verifier follows one that begins as a constant
 * through every turn of the loop, and gives up. Of one that comes from memory it knows nothing, and sees at once that
 * the turns are alike.
 */
static __always_inline u32 scxu_zero(void)
{
	return scxu_host.zero;
}

/*
 * The number of the nearest ancestor that has one. The root always has: it is the first to get one, and it never
 * goes.
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

/* Create the members from @first to @end of a group, except those that exist. Only where a program may sleep. */
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
 * How many cgroups there are. Where @number, give them numbers too, which only a policy that is attached by itself does
 * so: there no cgroup gives its number back, and one that comes later shares its nearest ancestor's.
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

/* Create the queues of a policy that is attached by itself. */
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

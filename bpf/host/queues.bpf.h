/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's part of queues: their creation, the hand-over of those that the running policy does not name, and the
 * numbers of cgroups.
 *
 * DSQs can be made only where a program may sleep, and a cgroup's first task may be enqueued the moment that
 * cgroup_init returns, which in a host that dispatches by tail calls does not sleep (Linux up to v6.19 refuses program
 * arrays in sleepable programs). So members are made ahead, and a cgroup is given a number for which they exist. A work
 * item, which may sleep, makes more when few are left. A cgroup that found none left shares its nearest ancestor's
 * member until then.
 *
 * A number is used again when its cgroup is gone and its members have been empty for a while. Members are not
 * destroyed as cgroups go, only with their group: an op in flight may still insert into one, and the kernel ejects a
 * scheduler that inserts into a queue which is gone. Who does so into one that was given up is handed over, as below.
 */
#ifndef __SCX_UPGRADE_HOST_QUEUES_BPF_H
#define __SCX_UPGRADE_HOST_QUEUES_BPF_H

#include <scx_upgrade/queues.bpf.h>
#include <scx_upgrade/work.bpf.h>

/*
 * How long the members of a number must have been empty before it is given to another cgroup, and how often that is
 * looked at. What may still insert is an op in flight, which runs with interrupts off: this is much longer.
 */
#define INDEX_QUIET_NS		(1000 * 1000 * 1000ULL)
#define FREE_PERIOD_NS		(20 * 1000 * 1000ULL)

/*
 * The section is a map of its own, pinned: a host that is attached in this one's place goes on with it, and the timer
 * and the work item of this one may still be at it then. Hence the exchanges.
 */

/* The state of each number: 0 is free, 1 taken, anything else is when the members of a retired one were last not empty. */
#define INDEX_FREE		0
#define INDEX_TAKEN		1

u64 index_states[SCX_UPGRADE_MAX_CGROUPS] SEC(".data.scxu_numbers");
/* How many are retired; where to look for a free one; does any cgroup do without? */
u32 nr_retired SEC(".data.scxu_numbers"), next_index SEC(".data.scxu_numbers"), has_demand SEC(".data.scxu_numbers");

/* Pinned: the kernel cancels both when the last that user space holds of the map goes. */
struct scxu_cgroup_work {
	struct bpf_wq grow;
	struct bpf_timer free_timer;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_cgroup_work);
} scxu_cgroup_work SEC(".maps");

static __always_inline struct scxu_cgroup_work *cgroup_work(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scxu_cgroup_work, &zero);
}

/*
 * The lock of what the groups and the number of their members are. Its holders sleep, so no BPF lock will do; they
 * are few, and who does not get it tries again later. A program runs to its end whoever is killed.
 */
static __always_inline bool lock_dsq_groups(void)
{
	return !__sync_val_compare_and_swap(&scxu_host.cgroup_lock, 0, 1);
}

static __always_inline void unlock_dsq_groups(void)
{
	__sync_lock_test_and_set(&scxu_host.cgroup_lock, 0);
}

/* Take a free number, plus one; 0 if there is none. In turn, so that one given up rests for long. */
static __noinline u32 take_index(void)
{
	u32 members = scxu_host.cgroup_members, from = next_index, i;

	bpf_for(i, 0, members) {
		u32 number = from + i;

		if (number >= members)
			number -= members;
		number &= SCX_UPGRADE_MAX_CGROUPS - 1;
		if (index_states[number] != INDEX_FREE ||
		    __sync_val_compare_and_swap(&index_states[number], INDEX_FREE, INDEX_TAKEN) != INDEX_FREE)
			continue;
		__sync_fetch_and_add(&scxu_host.cgroup_numbers, 1);
		next_index = number + 1;
		return number + 1;
	}
	return 0;
}

/* The most tasks that a timer moves from one DSQ at a time: it runs in an interrupt. */
#define HAND_OVER_TASKS		256

/*
 * Hand over tasks on one DSQ, up to @most; how many they were. The DSQ need not exist. Where the kernel cannot re-enqueue, they go to the head
 * of the global DSQ, because they have waited longest. The last goes first, which keeps their order.
 */
static __noinline u64 hand_over_queue(u64 id, u32 most)
{
	s32 queued = scx_bpf_dsq_nr_queued(id);
	struct task_struct *p;
	u32 moved = scxu_zero();

	if (queued <= 0)
		return 0;
	if (bpf_ksym_exists(scx_bpf_dsq_reenq___compat)) {
		scx_bpf_dsq_reenq___compat(id, 0);
		return queued;
	}
	bpf_rcu_read_lock();
	bpf_for_each(scx_dsq, p, id, SCX_DSQ_ITER_REV) {
		if (moved >= most)
			break;
		moved += scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_GLOBAL, SCX_ENQ_HEAD);
	}
	bpf_rcu_read_unlock();
	return moved;
}

/* Put the tasks of @cpu's run queue that wait on a DSQ on its local one. */
static __noinline int drain_offline_queue(u64 id, s32 cpu)
{
	struct task_struct *p;

	if (scx_bpf_dsq_nr_queued(id) <= 0)
		return 0;
	bpf_rcu_read_lock();
	bpf_for_each(scx_dsq, p, id, 0) {
		if (scx_bpf_task_cpu(p) == cpu)
			scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL_ON | cpu, 0);
	}
	bpf_rcu_read_unlock();
	return 0;
}

/*
 * A CPU goes, and it has been inactive for a grace period. Its run queue has to become empty first, but the kernel does not
 * ask an inactive CPU's ops.dispatch any more (balance_one(), Linux v7.3 kernel/sched/ext/ext.c): what waits on a DSQ and may
 * run nowhere else, such as its own kernel threads, would wait for ever, and so would who takes the CPU away. What is enqueued
 * from now on goes to its local DSQ by itself. A scheduler without this op the kernel would take off instead.
 */
static __noinline int drain_offline_cpu(s32 cpu)
{
	u32 i, k;

	bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS) {
		volatile struct scxu_dsq_group *group = &scxu_host.queues[i & (SCX_UPGRADE_MAX_ORPHANS - 1)];
		u32 members = group->per_cgroup ? scxu_host.cgroup_members : group->members;
		u64 base = group->base;

		if (!base)
			continue;
		bpf_for(k, 0, members)
			drain_offline_queue(base | k, cpu);
	}
	return 0;
}

/* Hand over the tasks on a number's member of every group; were there any? */
static __noinline bool hand_over_index(u32 number)
{
	u32 any = scxu_zero(), i;

	bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS) {
		u64 base = scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)];

		if (base && hand_over_queue(base | number, HAND_OVER_TASKS))
			any = 1;
	}
	return any;
}

static int grow_cgroup_queues(void *map, int *key, void *value);

static __always_inline void start_growing(struct scxu_cgroup_work *work)
{
	scxu_start_work(&work->grow, &scxu_cgroup_work, grow_cgroup_queues);
}

/* Whoever comes second finds that it is free, or taken, already. */
static __always_inline void free_index(u32 number, u64 since)
{
	if (__sync_val_compare_and_swap(&index_states[number], since, INDEX_FREE) != since)
		return;
	__sync_fetch_and_add(&nr_retired, -1);
	__sync_fetch_and_add(&scxu_host.cgroup_numbers, -1);
}

/*
 * Look at the retired numbers: tasks there are handed over, and what has been quiet for long is free. When none is left
 * one more round looks at the free ones too. No one inserts there: if ever someone does, it is not for ever.
 */
static int free_dead_indices(void *map, int *key, struct scxu_cgroup_work *work)
{
	u32 members = scxu_host.cgroup_members, i;
	bool last = !nr_retired;
	u64 now = bpf_ktime_get_ns();

	bpf_for(i, 0, members) {
		u32 number = i & (SCX_UPGRADE_MAX_CGROUPS - 1);
		u64 since = index_states[number];

		if (since == INDEX_TAKEN || (since == INDEX_FREE && !last))
			continue;
		if (hand_over_index(number) && since != INDEX_FREE) {
			__sync_val_compare_and_swap(&index_states[number], since, now);
			continue;
		}
		/* Signed: it may have been retired since the clock was read. */
		if (since != INDEX_FREE && (s64)(now - since) > (s64)INDEX_QUIET_NS)
			free_index(number, since);
	}
	if (has_demand)
		bpf_wq_start(&work->grow, 0);
	if (nr_retired || !last)
		bpf_timer_start(&work->free_timer, FREE_PERIOD_NS, 0);
	return 0;
}

/* @number's cgroup is gone. Tasks may still be on its members, and an op in flight may add some. */
static __always_inline void retire_index(u32 number)
{
	struct scxu_cgroup_work *work = cgroup_work();

	__sync_fetch_and_add(&nr_retired, 1);
	index_states[number & (SCX_UPGRADE_MAX_CGROUPS - 1)] = bpf_ktime_get_ns();
	if (!work)
		return;
	bpf_timer_init(&work->free_timer, &scxu_cgroup_work, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&work->free_timer, free_dead_indices);
	bpf_timer_start(&work->free_timer, FREE_PERIOD_NS, 0);
}

/*
 * Give @own's cgroup a number, if one is free. Whoever then finds that the cgroup went meanwhile takes the number back:
 * the exchange sees to it that it is one only.
 */
static __noinline int give_index(struct scxu_cgroup_number *own)
{
	u32 number = take_index();

	if (!number)
		return -ENOSPC;
	__sync_lock_test_and_set(&own->number, number);
	if (!*(volatile u32 *)&own->wants) {
		number = __sync_lock_test_and_set(&own->number, 0);
		if (number)
			retire_index(number - 1);
	}
	return 0;
}

/* The cgroups that found no number. */
static __noinline int alloc_waiting_indices(void)
{
	struct cgroup_subsys_state *pos;
	struct cgroup *root;

	if (!has_demand)
		return 0;
	root = bpf_cgroup_from_id(1);
	if (!root)
		return 0;
	has_demand = 0;
	bpf_rcu_read_lock();
	bpf_for_each(css, pos, &root->self, BPF_CGROUP_ITER_DESCENDANTS_PRE) {
		struct cgroup *cgrp = pos->cgroup;
		struct scxu_cgroup_number *own;

		if (!cgrp)
			continue;
		own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, cgrp, 0, 0);
		if (own && own->wants && !own->number && give_index(own))
			has_demand = 1;
	}
	bpf_rcu_read_unlock();
	bpf_cgroup_release(root);
	return 0;
}

/* Are fewer numbers left than are to be spare? */
static __always_inline bool indices_run_short(void)
{
	u32 members = scxu_host.cgroup_members;

	return members < SCX_UPGRADE_MAX_CGROUPS && scxu_host.cgroup_numbers + SCX_UPGRADE_SPARE_CGROUPS / 2 > members;
}

/* Create the members from @first to @end of every per-cgroup DSQ group. */
static __noinline int grow_dsq_groups(u32 first, u32 end)
{
	u32 i;
	int ret;

	bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS) {
		u64 base = scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)];

		if (!base)
			continue;
		ret = scxu_create_members(base, first, end);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * The work item: make more members, and number the cgroups that went without. Where there is no memory for more, those
 * go on without.
 */
static int grow_cgroup_queues(void *map, int *key, void *value)
{
	struct scxu_cgroup_work *work = value;
	u32 members, more;

	if (!lock_dsq_groups()) {
		bpf_wq_start(&work->grow, 0);
		return 0;
	}
	members = scxu_host.cgroup_members;
	if (indices_run_short()) {
		more = members + members / 2 + SCX_UPGRADE_SPARE_CGROUPS;
		if (more > SCX_UPGRADE_MAX_CGROUPS)
			more = SCX_UPGRADE_MAX_CGROUPS;
		if (!grow_dsq_groups(members, more))
			scxu_host.cgroup_members = more;
	}
	unlock_dsq_groups();
	alloc_waiting_indices();
	return 0;
}

/* For cgroup_init. A cgroup without a number is none the worse but for sharing. */
static __always_inline void cgroup_index_alloc(struct cgroup *cgrp)
{
	struct scxu_cgroup_number *own;
	struct scxu_cgroup_work *work;

	own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!own)
		return;
	own->wants = 1;
	if (give_index(own))
		has_demand = 1;
	if (has_demand || indices_run_short()) {
		work = cgroup_work();
		if (work)
			start_growing(work);
	}
}

/* For cgroup_exit. From here on the dying tasks that are still in @cgrp use its nearest ancestor's queues. */
static __always_inline void cgroup_index_free(struct cgroup *cgrp)
{
	struct scxu_cgroup_number *own = bpf_cgrp_storage_get(&scxu_cgroup_numbers, cgrp, 0, 0);
	u32 number;

	if (!own)
		return;
	__sync_lock_test_and_set(&own->wants, 0);
	number = __sync_lock_test_and_set(&own->number, 0);
	if (number)
		retire_index(number - 1);
}

/* Create a per-cgroup DSQ group, and make it grow as cgroups come. With the lock held, or before the host is attached. */
static __noinline int add_cgroup_dsq_group(u64 base)
{
	u32 i, free = SCX_UPGRADE_MAX_ORPHANS;
	int ret;

	ret = scxu_create_members(base, 0, scxu_host.cgroup_members);
	if (ret)
		return ret;
	bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS) {
		u64 other = scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)];

		if (other == base)
			return 0;
		if (!other)
			free = i;
	}
	if (free >= SCX_UPGRADE_MAX_ORPHANS)
		return -ENOSPC;
	scxu_host.cgroup_dsq_groups[free & (SCX_UPGRADE_MAX_ORPHANS - 1)] = base;
	return 0;
}

/*
 * Where a host was attached before, the kernel destroyed all queues when it was detached, and every cgroup gave its
 * number back. No op may still insert into a member of a retired one: they need not rest.
 */
static __noinline int forget_queues(void)
{
	u32 members = scxu_host.cgroup_members, i;

	bpf_for(i, 0, members) {
		u32 number = i & (SCX_UPGRADE_MAX_CGROUPS - 1);
		u64 since = index_states[number];

		if (since != INDEX_FREE && since != INDEX_TAKEN)
			free_index(number, since);
	}
	bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS)
		scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)] = 0;
	return 0;
}

/* The boot queues, with the lock held. */
static __noinline int make_boot_queues(void)
{
	u32 i, members;
	int ret;

	forget_queues();
	ret = scxu_count_cgroups(false);
	if (ret < 0)
		return ret;
	members = ret + 2 * SCX_UPGRADE_SPARE_CGROUPS;
	/* Never fewer than before: a number that is not free must stay below it. */
	if (members < scxu_host.cgroup_members)
		members = scxu_host.cgroup_members;
	scxu_host.cgroup_members = members < SCX_UPGRADE_MAX_CGROUPS ? members : SCX_UPGRADE_MAX_CGROUPS;

	bpf_for(i, 0, SCX_UPGRADE_MAX_QUEUES) {
		volatile struct scxu_dsq_group *group = &scxu_host.boot_queues[i & (SCX_UPGRADE_MAX_QUEUES - 1)];

		if (!group->base)
			break;
		if (group->per_cgroup)
			ret = add_cgroup_dsq_group(group->base);
		else
			ret = scxu_create_members(group->base, 0, group->members);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Create the queues of the policy that is active when the host is attached. A work item of the host before may have the
 * lock, for a moment: user space waits for it. One that is there all the same must not see half of this.
 */
static __always_inline int create_boot_queues(void)
{
	int ret;

	if (!lock_dsq_groups())
		return -EBUSY;
	ret = make_boot_queues();
	unlock_dsq_groups();
	return ret;
}

/*
 * Move a task to the local DSQ from a queue that a commit took from under its tasks. Of few members all are asked, the
 * first first. Of many only some, from a random place on: their look-ups take time, and a lock is held.
 */
static __noinline int serve_orphans(void)
{
	u32 nr = scxu_host.nr_orphans, members = scxu_host.orphan_members, i;
	u32 at = scxu_zero(), index = scxu_zero();

	if (members > SCX_UPGRADE_ORPHANS_A_TIME) {
		u32 all = scxu_host.orphans[0].members, random = bpf_get_prandom_u32() % members;

		/* Which of the members of all groups that is. */
		bpf_for(i, 1, nr) {
			if (random < all)
				break;
			random -= all;
			at = i;
			all = scxu_host.orphans[i & (SCX_UPGRADE_MAX_ORPHANS - 1)].members;
		}
		index = random;
		members = SCX_UPGRADE_ORPHANS_A_TIME;
	}
	/* A step for each group on the way as well. */
	bpf_for(i, 0, members + nr) {
		volatile struct scxu_dsq_group *group = &scxu_host.orphans[at & (SCX_UPGRADE_MAX_ORPHANS - 1)];
		u32 end = group->per_cgroup ? scxu_host.cgroup_members : group->members;

		if (index >= end) {
			index = scxu_zero();
			at = at + 1 < nr ? at + 1 : scxu_zero();
			continue;
		}
		if (scx_bpf_dsq_move_to_local(group->base | index, 0)) {
			__sync_fetch_and_add(&scxu_host.orphans_served, 1);
			return 1;
		}
		index++;
	}
	return 0;
}

/* What members a group has. */
static __always_inline u32 group_members(struct scxu_queue_args *args)
{
	if (args->per_cgroup)
		args->members = scxu_host.cgroup_members;
	return args->members;
}

/* Create a group. Returns the kernel's error, or -EBUSY when it is to be asked for again. */
SEC("syscall")
int create_queues(struct scxu_queue_args *args)
{
	int ret;

	if (!args->per_cgroup)
		return scxu_create_members(args->base, 0, args->members);
	if (!lock_dsq_groups())
		return -EBUSY;
	ret = add_cgroup_dsq_group(args->base);
	unlock_dsq_groups();
	return ret;
}

/* Which members exist, and how many tasks are on them. */
SEC("syscall")
int count_queues(struct scxu_queue_args *args)
{
	u32 members = group_members(args), i;
	u64 existing = 0, queued = 0;

	bpf_for(i, 0, members) {
		s32 here = scx_bpf_dsq_nr_queued(args->base | i);

		existing += here >= 0;
		queued += here > 0 ? here : 0;
	}
	args->existing = existing;
	args->queued = queued;
	return 0;
}

/*
 * Hand over the tasks on a group that the running policy does not name. Where the kernel can (v7.1), they pass through
 * the running policy's enqueue again, asynchronously; else they go to the global DSQ, which the kernel itself serves
 * before it asks the policy.
 */
SEC("syscall")
int drain_queues(struct scxu_queue_args *args)
{
	u32 members = group_members(args), i;
	u64 moved = 0, queued = 0;

	bpf_for(i, 0, members) {
		s32 left;

		moved += hand_over_queue(args->base | i, -1);
		left = scx_bpf_dsq_nr_queued(args->base | i);
		queued += left > 0 ? left : 0;
	}
	args->moved = moved;
	args->queued = queued;
	return 0;
}

/*
 * Destroy a group, after a grace period in which nobody asked for it. All of it must be empty: the kernel ejects the
 * scheduler otherwise. -EBUSY when it is to be asked for again.
 */
SEC("syscall")
int destroy_queues(struct scxu_queue_args *args)
{
	u32 members, i;
	u64 queued = 0;

	if (args->per_cgroup) {
		if (!lock_dsq_groups())
			return -EBUSY;
		bpf_for(i, 0, SCX_UPGRADE_MAX_ORPHANS) {
			if (scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)] == args->base)
				scxu_host.cgroup_dsq_groups[i & (SCX_UPGRADE_MAX_ORPHANS - 1)] = 0;
		}
		unlock_dsq_groups();
	}
	members = group_members(args);
	bpf_for(i, 0, members) {
		s32 here = scx_bpf_dsq_nr_queued(args->base | i);

		if (here > 0)
			queued += here;
		else if (here == 0)
			scx_bpf_destroy_dsq(args->base | i);
	}
	args->queued = queued;
	return 0;
}

#endif /* __SCX_UPGRADE_HOST_QUEUES_BPF_H */

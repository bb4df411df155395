/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's side of DSQ groups: creates them, drains those that the active policy does not name, and assigns indices to
 * cgroups.
 *
 * A DSQ can be created only by a program that may sleep. The first task of a cgroup may be enqueued as soon as cgroup_init
 * returns. The host's cgroup_init cannot sleep, because Linux up to v6.19 refuses program arrays in sleepable programs. So
 * the host creates DSQs in advance, and gives a cgroup an index for which they exist. When few are left, a work item, which
 * may sleep, creates more. A cgroup that gets no index shares the DSQs of its nearest ancestor until then.
 *
 * An index is reused when its cgroup is gone and its DSQs have been empty for a while. DSQs are not destroyed with their
 * cgroup, only with their group: an op in flight may still insert into one, and the kernel ejects a scheduler that inserts
 * into a missing DSQ. A task that is inserted into the DSQ of a dead cgroup is moved, see free_dead_indices().
 */
#ifndef __SCX_UPGRADE_HOST_QUEUES_BPF_H
#define __SCX_UPGRADE_HOST_QUEUES_BPF_H

#include <scx_upgrade/queues.bpf.h>
#include <scx_upgrade/work.bpf.h>

/*
 * How long the DSQs of a dead index must have been empty before another cgroup gets the index, and how often the host looks.
 * Only an op in flight can still insert, and ops run with interrupts disabled, so this is ample.
 */
#define INDEX_QUIET_NS		(1000 * 1000 * 1000ULL)
#define FREE_PERIOD_NS		(20 * 1000 * 1000ULL)

/*
 * The section is a pinned map of its own. A host that is attached in place of this one continues with it, while the timer and
 * the work item of this host may still use it. So all changes are atomic.
 */

/* The state of each index: free, taken, or dead. For a dead index it is the time when its DSQs were last not empty. */
#define INDEX_FREE		0
#define INDEX_TAKEN		1

u64 index_states[SCX_UPGRADE_MAX_CGROUPS] SEC(".data.scxu_numbers");
/* The number of dead indices; where to search for a free one; does a cgroup wait for one? */
u32 nr_retired SEC(".data.scxu_numbers"), next_index SEC(".data.scxu_numbers"), has_demand SEC(".data.scxu_numbers");

/* Pinned, because the kernel cancels both when user space's last reference to the map goes. */
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
 * Protects the DSQ groups and the number of their members. Its holders sleep, so it cannot be a BPF lock. Contention is rare,
 * and a caller that does not get the lock tries again later. A program that holds it runs to its end even if its process is
 * killed.
 */
static __always_inline bool lock_dsq_groups(void)
{
	return !__sync_val_compare_and_swap(&scxu_host.cgroup_lock, 0, 1);
}

static __always_inline void unlock_dsq_groups(void)
{
	__sync_lock_test_and_set(&scxu_host.cgroup_lock, 0);
}

/* Take a free index. Returns the index plus one, or 0. Searches round robin, so that a freed index stays unused for long. */
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

/* The most tasks that a timer moves from one DSQ at a time, because it runs in an interrupt. */
#define HAND_OVER_TASKS		256

/*
 * Move up to @most tasks of one DSQ to the active policy. Returns how many. The DSQ need not exist. From Linux 7.1 on the
 * kernel re-enqueues them. Before, they go to the head of the global DSQ, because they have waited longest; the last task
 * goes first, which keeps their order.
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

/* Move the tasks of @cpu's run queue from a DSQ to @cpu's local DSQ. */
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
 * A CPU goes offline, and has been inactive for a grace period. Its run queue must become empty, but the kernel no longer
 * calls ops.dispatch for an inactive CPU (balance_one(), Linux v7.3 kernel/sched/ext/ext.c). A task on a DSQ that may run
 * nowhere else, such as a per-CPU kthread, would wait for ever, and so would the hotplug. The kernel inserts tasks that are
 * enqueued from now on into the local DSQ itself.
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

/* Move the tasks from all DSQs of an index. Returns whether there were any. */
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

/* Free a dead index. A second caller finds it free or taken, and does nothing. */
static __always_inline void free_index(u32 number, u64 since)
{
	if (__sync_val_compare_and_swap(&index_states[number], since, INDEX_FREE) != since)
		return;
	__sync_fetch_and_add(&nr_retired, -1);
	__sync_fetch_and_add(&scxu_host.cgroup_numbers, -1);
}

/*
 * The timer: moves tasks from the DSQs of dead indices, and frees each index whose DSQs have been empty for INDEX_QUIET_NS.
 * When no index is dead any more, one last round looks at the free indices too. No op should insert there; if one does, its
 * task does not wait for ever.
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
		/* Signed: the index may have become dead after `now` was read. */
		if (since != INDEX_FREE && (s64)(now - since) > (s64)INDEX_QUIET_NS)
			free_index(number, since);
	}
	if (has_demand)
		bpf_wq_start(&work->grow, 0);
	if (nr_retired || !last)
		bpf_timer_start(&work->free_timer, FREE_PERIOD_NS, 0);
	return 0;
}

/* The cgroup of @number is gone. Its DSQs may still have tasks, and an op in flight may insert more. */
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
 * Give @own's cgroup an index, if one is free. If the cgroup is removed meanwhile, either this function or
 * cgroup_index_free() takes the index back: the exchange makes sure that only one does.
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

/* Give indices to the cgroups that wait for one. */
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

/* Are fewer indices free than should be spare? */
static __always_inline bool indices_run_short(void)
{
	u32 members = scxu_host.cgroup_members;

	return members < SCX_UPGRADE_MAX_CGROUPS && scxu_host.cgroup_numbers + SCX_UPGRADE_SPARE_CGROUPS / 2 > members;
}

/* Create the members @first to @end - 1 of every per-cgroup DSQ group. */
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

/* The work item: creates more members, and gives indices to the cgroups that wait. Without memory those keep sharing. */
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

/* For cgroup_init. A cgroup without an index shares its ancestor's DSQs, so this cannot fail. */
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

/* For cgroup_exit. From here on the exiting tasks in @cgrp use the DSQs of its nearest ancestor. */
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

/*
 * Create a per-cgroup DSQ group, and let it grow with the cgroups. Call it with the lock held, or before the host is
 * attached.
 */
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
 * Forget the DSQs of an earlier attach. The kernel destroyed them when the host was detached, and every cgroup gave its index
 * back. No op can insert into the DSQs of a dead index any more, so dead indices are free at once.
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

/* Create the boot queues. Call it with the lock held. */
static __noinline int make_boot_queues(void)
{
	u32 i, members;
	int ret;

	forget_queues();
	ret = scxu_count_cgroups(false);
	if (ret < 0)
		return ret;
	members = ret + 2 * SCX_UPGRADE_SPARE_CGROUPS;
	/* Never fewer than before: an index that is not free must stay below it. */
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
 * Create the queues of the policy that is active when the host is attached. A work item of an earlier host may hold the lock
 * for a moment. User space waits for that before the attach. If one still holds it, the attach fails.
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
 * Move one task from an orphan to the local DSQ. Returns 1 if there was one. With few DSQs it visits all in order. With many
 * it visits only SCX_UPGRADE_ORPHANS_A_TIME from a random one on: each look-up takes time, and dispatch holds the run queue's
 * lock.
 */
static __noinline int serve_orphans(void)
{
	u32 nr = scxu_host.nr_orphans, members = scxu_host.orphan_members, i;
	u32 at = scxu_zero(), index = scxu_zero();

	if (members > SCX_UPGRADE_ORPHANS_A_TIME) {
		u32 all = scxu_host.orphans[0].members, random = bpf_get_prandom_u32() % members;

		/* Find the group of the random member. */
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
	/* Moving on to the next group takes an iteration too. */
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

/* The number of members of a group. */
static __always_inline u32 group_members(struct scxu_queue_args *args)
{
	if (args->per_cgroup)
		args->members = scxu_host.cgroup_members;
	return args->members;
}

/* Create a DSQ group. Returns the kernel's error, or -EBUSY if the caller is to try again. */
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

/* Count the members that exist, and the tasks on them. */
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
 * Move the tasks of a group that the active policy does not name. From Linux 7.1 on they pass through the active policy's
 * enqueue again, asynchronously. Before, they go to the global DSQ, which the kernel consumes before it calls dispatch.
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
 * Destroy a group, after a grace period in which no op used it. Its DSQs must be empty, or the kernel ejects the scheduler.
 * Returns -EBUSY if the caller is to try again.
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hand-over: what a commit leaves to do for the tasks that the earlier policy placed. A timer of the host does it. The
 * timer needs no process and no op, so a command that is killed leaves nothing undone.
 *
 * - Tasks wait on orphans, the queues that the running policy does not name. host_dispatch() serves them, but the kernel consumes
 *   the global DSQ before it calls ops.dispatch (scx_consume_global_dsq(), Linux v7.3 kernel/sched/ext/inlines.h). A policy that
 *   keeps the global DSQ filled starves them. A task among them that was preempted inside an RCU read section then keeps every
 *   grace period from ending, also the one that the swap waits for. So the timer empties the orphans.
 * - Tasks have slices that the earlier policy gave them. A slice may be long or have no end (SCX_SLICE_INF), because the earlier
 *   policy ended each turn itself. The timer shortens such slices to SCX_SLICE_DFL. It preempts a task that runs with one: that
 *   task passes the running policy's enqueue and gets a slice of the running policy's. This works on running tasks, on local DSQs,
 *   which nothing can iterate, and on queues that the running policy keeps. It costs nothing at a context switch, and a policy
 *   that counts its enqueues sees none that it did not cause.
 *
 * User space names the commit in scxu_host.handover_to and starts the timer just before the commit. The timer waits until the
 * control word is that one. User space starts the timer again after the grace period: an op of the earlier policy in flight may
 * have given a slice, or inserted into an orphan, until then. If nobody does, the timer looks at the slices once more after
 * HANDOVER_GRACE_NS, and goes on to look at the orphans.
 *
 * host_init() sets the timer's callback. So the callback is part of a struct_ops program, and may write p->scx.slice also on a
 * kernel that has no kfunc for it (up to v6.18).
 */
#ifndef __SCX_UPGRADE_HOST_HANDOVER_BPF_H
#define __SCX_UPGRADE_HOST_HANDOVER_BPF_H

#include <scx_upgrade/task_table.bpf.h>
#include "queues.bpf.h"

/* Between two ticks while there is something to do; while the commit is awaited; and while there is nothing to do. */
#define HANDOVER_TICK_NS	(1000 * 1000ULL)
#define HANDOVER_WAIT_NS	(4 * 1000 * 1000ULL)
#define HANDOVER_IDLE_NS	(64 * 1000 * 1000ULL)
/* An op runs with interrupts off. None is in flight for so long. */
#define HANDOVER_GRACE_NS	(1000 * 1000 * 1000ULL)
/* The most that one tick looks at, of queues and of tasks. A per-cgroup DSQ group has up to SCX_UPGRADE_MAX_CGROUPS members. */
#define HANDOVER_QUEUES		1024
#define HANDOVER_ROWS		1024

/* Only the timer's callback writes what stands below `started`. */
struct scxu_handover {
	struct bpf_timer tick;
	u32	started;		/* counts up each time that user space starts the timer */
	u32	settled;		/* a grace period is over since the commit */
	u32	seen;			/* the value of `started` that the callback has seen */
	u32	row;			/* the next row of the task table to look at */
	u32	group, member;		/* the next orphan to look at */
	u32	looked_again;		/* the look at the slices after HANDOVER_GRACE_NS has begun */
	u64	since;			/* when the callback saw the commit */
};

/* Pinned: the kernel cancels the timer when user space's last reference to the map goes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_handover);
} scxu_handover SEC(".maps");

/* Empty some of the orphans. Returns whether to go on soon. */
static __noinline bool drain_orphans(struct scxu_handover *work)
{
	u32 nr = scxu_host.nr_orphans, moved = scxu_zero(), i;
	u32 at = work->group, index = work->member;

	bpf_for(i, 0, HANDOVER_QUEUES) {
		volatile struct scxu_dsq_group *group = &scxu_host.orphans[at & (SCX_UPGRADE_MAX_ORPHANS - 1)];
		u32 end;

		if (at >= nr)
			break;
		end = group->per_cgroup ? scxu_host.cgroup_members : group->members;
		if (index >= end) {
			index = scxu_zero();
			at++;
			continue;
		}
		moved += hand_over_queue(group->base | index, HAND_OVER_TASKS);
		index++;
	}
	if (moved)
		__sync_fetch_and_add(&scxu_host.orphans_served, moved);
	if (at < nr) {
		work->group = at;
		work->member = index;
		return true;
	}
	work->group = 0;
	work->member = 0;
	return moved;
}

/* Shorten the slices of some of all tasks. Returns whether there are more. */
static __noinline bool shorten_slices(struct scxu_handover *work)
{
	u32 rows = scxu_host.task_table.rows, row = work->row, i;

	bpf_rcu_read_lock();
	bpf_for(i, 0, HANDOVER_ROWS) {
		struct scxu_task_row *own;
		struct task_struct *p;
		u32 key = row;

		if (row >= rows)
			break;
		row++;
		own = bpf_map_lookup_elem(&scxu_task_table, &key);
		if (!own)
			continue;
		p = own->task;
		if (!p || p->scx.slice <= SCX_SLICE_DFL)
			continue;
		scx_bpf_task_set_slice(p, SCX_SLICE_DFL);
		if (scx_bpf_task_running(p))
			scx_bpf_kick_cpu(scx_bpf_task_cpu(p), SCX_KICK_PREEMPT);
	}
	bpf_rcu_read_unlock();
	work->row = row;
	return row < rows;
}

static int handover_tick(void *map, int *key, struct scxu_handover *work)
{
	u32 to = scxu_host.handover_to, started = *(volatile u32 *)&work->started;
	u64 now = bpf_ktime_get_ns();
	bool busy;

	if (!to)
		return 0;
	if (*(volatile u32 *)&scxu_host.active != to) {
		bpf_timer_start(&work->tick, HANDOVER_WAIT_NS, 0);
		return 0;
	}
	if (work->seen != started) {
		work->seen = started;
		work->since = now;
		work->row = 0;
		work->looked_again = work->settled;
	}
	busy = drain_orphans(work);
	busy |= shorten_slices(work);
	if (!busy && !work->looked_again && now - work->since > HANDOVER_GRACE_NS) {
		work->looked_again = 1;
		work->row = 0;
		busy = true;
	}
	if (busy)
		bpf_timer_start(&work->tick, HANDOVER_TICK_NS, 0);
	else if (scxu_host.nr_orphans || !work->looked_again)
		bpf_timer_start(&work->tick, HANDOVER_IDLE_NS, 0);
	return 0;
}

/* For host_init(). The map may be that of a host which was attached before: then the callback is replaced. */
static __always_inline void init_handover(void)
{
	u32 zero = 0;
	struct scxu_handover *work = bpf_map_lookup_elem(&scxu_handover, &zero);

	if (!work)
		return;
	bpf_timer_init(&work->tick, &scxu_handover, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&work->tick, handover_tick);
}

/* Start the timer, see above; @settled: a grace period is over since the commit. */
SEC("syscall")
int start_handover(u64 *settled)
{
	u32 zero = 0;
	struct scxu_handover *work = bpf_map_lookup_elem(&scxu_handover, &zero);

	if (!work)
		return -ENOENT;
	work->settled = *settled;
	__sync_fetch_and_add(&work->started, 1);
	return bpf_timer_start(&work->tick, *settled ? 0 : HANDOVER_TICK_NS, 0);
}

#endif /* __SCX_UPGRADE_HOST_HANDOVER_BPF_H */

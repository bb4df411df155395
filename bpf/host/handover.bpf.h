/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hand-over: a timer of the host that takes care of tasks which the earlier policy placed. The timer needs no process and
 * no op, so a command that is killed leaves nothing undone.
 *
 * - Tasks wait on orphans, the DSQs that the active policy does not name. host_dispatch() consumes orphans, but the kernel
 *   consumes the global DSQ before it calls ops.dispatch (scx_consume_global_dsq(), Linux v7.3 kernel/sched/ext/inlines.h).
 *   So a policy that keeps the global DSQ filled starves the orphans. If one of their tasks was preempted in an RCU read
 *   section, no grace period ends, and the swap waits for one. So the timer drains the orphans.
 * - Tasks have slices from the earlier policy. Such a slice may be long or endless (SCX_SLICE_INF), because the earlier
 *   policy ended each turn itself. The timer shortens it to SCX_SLICE_DFL. If the task is running, the timer preempts it, so
 *   that it passes through the active policy's enqueue and gets a slice there. This covers running tasks, local DSQs, which
 *   no program can iterate, and DSQs that the active policy took over. It costs nothing at a context switch.
 *
 * User space stores the control word of the commit in scxu_host.handover_to, and starts the timer just before the commit. The
 * timer waits until that is the control word. User space starts the timer again after the grace period, because until then an
 * op of the earlier policy in flight may give a slice or insert into an orphan. If user space does not, the timer looks at
 * the slices once more after HANDOVER_GRACE_NS, and continues to look at the orphans.
 *
 * host_init() sets the timer's callback. So the callback is part of a struct_ops program, and may write p->scx.slice on a
 * kernel that has no kfunc for it (up to v6.18).
 */
#ifndef __SCX_UPGRADE_HOST_HANDOVER_BPF_H
#define __SCX_UPGRADE_HOST_HANDOVER_BPF_H

#include <scx_upgrade/task_table.bpf.h>
#include "queues.bpf.h"

/* The period of the timer while there is work, while it waits for the commit, and while there is no work. */
#define HANDOVER_TICK_NS	(1000 * 1000ULL)
#define HANDOVER_WAIT_NS	(4 * 1000 * 1000ULL)
#define HANDOVER_IDLE_NS	(64 * 1000 * 1000ULL)
/* Ops run with interrupts disabled, so none is in flight for so long. */
#define HANDOVER_GRACE_NS	(1000 * 1000 * 1000ULL)
/* The most DSQs and tasks that one tick visits. A per-cgroup DSQ group has up to SCX_UPGRADE_MAX_CGROUPS members. */
#define HANDOVER_QUEUES		1024
#define HANDOVER_ROWS		1024

/* Only the timer's callback writes the members after `settled`. */
struct scxu_handover {
	struct bpf_timer tick;
	u32	started;		/* user space increments it when it starts the timer */
	u32	settled;		/* a grace period is over since the commit */
	u32	seen;			/* value of `started` that the callback has seen */
	u32	row;			/* the next row of the task table to look at */
	u32	group, member;		/* the next orphan to look at */
	u32	looked_again;		/* the second scan of the slices has begun */
	u64	since;			/* when the callback saw the commit */
};

/* Pinned, because the kernel cancels the timer when user space's last reference to the map goes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_handover);
} scxu_handover SEC(".maps");

/* Drain some of the orphans. Returns whether to continue soon. */
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

/* Shorten the slices of some tasks. Returns whether there are more. */
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

/* For host_init(). The map may have been another host's: then this replaces the callback. */
static __always_inline void init_handover(void)
{
	u32 zero = 0;
	struct scxu_handover *work = bpf_map_lookup_elem(&scxu_handover, &zero);

	if (!work)
		return;
	bpf_timer_init(&work->tick, &scxu_handover, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&work->tick, handover_tick);
}

/* Start the timer, see above. @settled: a grace period has passed since the commit. */
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The task table's books (include/scx_upgrade/task_table.bpf.h). When does a task get a row, and when is it taken back?
 *
 * - All that there are when the host is attached: in init_task.
 * - Who is born later: in enable, which the kernel calls when a fork can fail no more. In init_task it still may, and a task whose
 *   fork fails is freed whoever has references to it (copy_process(), kernel/fork.c).
 * - Who is born outside sched_ext, say in a real-time class, never comes to enable: it is untracked. The next swap's preparations
 *   give it a row (track_untracked), or its own enable, should it change its class.
 * - It goes in exit_task, the last op of each task. A kernel up to 6.18 calls that when nobody has a reference any more, and the row
 *   has one (sched_ext_free(), from __put_task_struct()): there it goes when the task begins to exit. Later kernels call it when the
 *   task is off its CPU for good (sched_ext_dead(), from finish_task_switch()).
 */

#ifndef __SCX_UPGRADE_HOST_TASK_TABLE_BPF_H
#define __SCX_UPGRADE_HOST_TASK_TABLE_BPF_H

#include <scx_upgrade/task_table.bpf.h>

/* Rows that are free again. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1);
	__type(value, u32);
} scxu_free_rows SEC(".maps");

/* What a record says instead of a row. Rows are counted from 1 there. */
#define ROW_NONE	0
#define ROW_UNTRACKED	0xfffffffe	/* none, and it is it is counted in task_table.untracked */
#define ROW_REMOVED	0xffffffff	/* none any more: its last op has been */

/* Set before it is loaded: it is attached with SCX_OPS_SWITCH_PARTIAL, so only who asked for it is on sched_ext. */
const volatile bool host_is_partial;

#define MAX_RT_PRIO	100
#define SCHED_EXT	7

static __always_inline void count_untracked(struct scxu_task_record *rec)
{
	if (__sync_val_compare_and_swap(&rec->row, ROW_NONE, ROW_UNTRACKED) == ROW_NONE)
		__sync_fetch_and_add(&scxu_host.task_table.untracked, 1);
}

static __always_inline void uncount_untracked(u32 row)
{
	if (row == ROW_UNTRACKED)
		__sync_fetch_and_add(&scxu_host.task_table.untracked, -1);
}

/* One that is free, by its index; past the end of the task table if none is. */
static __always_inline u32 claim_row(void)
{
	u32 row;

	if (!bpf_map_pop_elem(&scxu_free_rows, &row))
		return row;
	row = scxu_host.task_table.rows;
	/* Once it is full the count must not go on. */
	if (!bpf_map_lookup_elem(&scxu_task_table, &row))
		return row;
	return __sync_fetch_and_add(&scxu_host.task_table.rows, 1);
}

/* Should the kernel not take it, it is lost to this host: one task less has room. */
static __always_inline void free_row(u32 row)
{
	bpf_map_push_elem(&scxu_free_rows, &row, 0);
}

static __always_inline void clear_row(struct scxu_task_row *own)
{
	struct task_struct *p = bpf_kptr_xchg(&own->task, NULL);

	if (p)
		bpf_task_release(p);
}

/*
 * Give @p a row, if it has none and is not gone. The caller brings the record up to date afterwards: a sweep that was here before the
 * row was has begun before that.
 */
static __noinline int track_task(struct task_struct *p, struct scxu_task_record *rec)
{
	u32 before, row;
	struct scxu_task_row *own;
	struct task_struct *ref;

	/* In this order: who is not exiting yet will say that it is gone later than this is read. */
	before = *(volatile u32 *)&rec->row;
	if ((before != ROW_NONE && before != ROW_UNTRACKED) || (p->flags & PF_EXITING))
		return 0;
	row = claim_row();
	own = bpf_map_lookup_elem(&scxu_task_table, &row);
	if (!own) {
		count_untracked(rec);
		return 0;
	}
	ref = bpf_task_acquire(p);
	if (!ref) {
		free_row(row);
		return 0;
	}
	ref = bpf_kptr_xchg(&own->task, ref);
	if (ref)
		bpf_task_release(ref);
	if (__sync_val_compare_and_swap(&rec->row, before, row + 1) == before) {
		uncount_untracked(before);
		return 0;
	}
	/* Another CPU was first, or it is gone. */
	clear_row(own);
	free_row(row);
	return 0;
}

/* Take the row of @p back, and say @instead. */
static __noinline int untrack_task(struct task_struct *p, u32 instead)
{
	struct scxu_task_record *rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);
	struct scxu_task_row *own;
	u32 row;

	if (!rec)
		return 0;
	row = __sync_lock_test_and_set(&rec->row, instead);
	if (row == ROW_NONE || row == ROW_REMOVED)
		return 0;
	if (row == ROW_UNTRACKED) {
		uncount_untracked(row);
		return 0;
	}
	row--;
	own = bpf_map_lookup_elem(&scxu_task_table, &row);
	if (own) {
		clear_row(own);
		free_row(row);
	}
	return 0;
}

/* A task that is being made, or that is there when the host is attached. False if there is no memory for its record. */
static __noinline bool init_task_record(struct task_struct *p, struct scx_init_task_args *args)
{
	struct scxu_task_record *rec;

	rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!rec)
		return false;
	/* What another host's table had, or this one's before it was detached. Before track_task() looks whether the task is exiting. */
	__sync_lock_test_and_set(&rec->row, ROW_NONE);
	if (!args->fork)
		track_task(p, rec);
	else if (p->prio < MAX_RT_PRIO || (host_is_partial && p->policy != SCHED_EXT))
		count_untracked(rec);
	return scxu_task_record(p);
}

/* Loaded and attached only where exit_task would come too late. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(host_task_exits, struct task_struct *p)
{
	untrack_task(p, ROW_REMOVED);
	return 0;
}

/* All that the kernel's lists have and that have no row yet. */
SEC("syscall")
int track_untracked(void *unused)
{
	struct task_struct *p;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		struct scxu_task_record *rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);

		if (rec && rec->row == ROW_UNTRACKED)
			track_task(p, rec);
	}
	bpf_rcu_read_unlock();
	return 0;
}

#endif /* __SCX_UPGRADE_HOST_TASK_TABLE_BPF_H */

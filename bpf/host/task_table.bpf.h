/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Adds tasks to the task table (include/scx_upgrade/task_table.bpf.h), and removes them:
 *
 * - A task that exists when the host is attached gets its row in init_task.
 * - A new task gets its row in enable, which the kernel calls when the fork can no longer fail. If a fork fails after
 *   init_task, the kernel frees the task even if a row has a reference to it (copy_process(), kernel/fork.c).
 * - A task that is created outside sched_ext, for example in a real-time class, does not pass through enable. It is
 *   untracked. The preparation of the next swap gives it a row (track_untracked()), or its own enable does if its class
 *   changes.
 * - A task loses its row in exit_task, the last op for a task. A kernel up to 6.18 calls that after the last reference is
 *   gone, and the row has a reference (sched_ext_free(), from __put_task_struct()). There the row goes when the task begins
 *   to exit. Later kernels call exit_task when the task has left its CPU for good (sched_ext_dead(), from
 *   finish_task_switch()).
 */

#ifndef __SCX_UPGRADE_HOST_TASK_TABLE_BPF_H
#define __SCX_UPGRADE_HOST_TASK_TABLE_BPF_H

#include <scx_upgrade/task_table.bpf.h>

/* The indices of rows that are free again. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1);
	__type(value, u32);
} scxu_free_rows SEC(".maps");

/* Values of a record's `row` other than a row. Rows count from 1 there. */
#define ROW_NONE	0
#define ROW_UNTRACKED	0xfffffffe	/* none, and it is it is counted in task_table.untracked */
#define ROW_REMOVED	0xffffffff	/* no row any more: the task has passed its last op */

/* User space sets it if the host is attached with SCX_OPS_SWITCH_PARTIAL: then only SCHED_EXT tasks are in sched_ext. */
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

/* Returns the index of a free row, or an index past the end of the table if there is none. */
static __always_inline u32 claim_row(void)
{
	u32 row;

	if (!bpf_map_pop_elem(&scxu_free_rows, &row))
		return row;
	row = scxu_host.task_table.rows;
	/* When the table is full, the count must not grow. */
	if (!bpf_map_lookup_elem(&scxu_task_table, &row))
		return row;
	return __sync_fetch_and_add(&scxu_host.task_table.rows, 1);
}

/* If the push fails, this host loses the row, and has room for one task less. */
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
 * Give @p a row, unless it has one or has passed its last op. The caller migrates the record afterwards: a sweep that passed
 * before the row was set had begun before that.
 */
static __noinline int track_task(struct task_struct *p, struct scxu_task_record *rec)
{
	u32 before, row;
	struct scxu_task_row *own;
	struct task_struct *ref;

	/* Read the row first: a task that does not have PF_EXITING yet sets ROW_REMOVED later than this. */
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
	/* Another CPU was first, or the task has passed its last op. */
	clear_row(own);
	free_row(row);
	return 0;
}

/* Remove the row of @p, and set @instead. */
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

/* For a new task, or a task that exists when the host is attached. False if there is no memory for its record. */
static __noinline bool init_task_record(struct task_struct *p, struct scx_init_task_args *args)
{
	struct scxu_task_record *rec;

	rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!rec)
		return false;
	/* Forget the row in another host's table, or in this one's before a detach. Before track_task() reads PF_EXITING. */
	__sync_lock_test_and_set(&rec->row, ROW_NONE);
	if (!args->fork)
		track_task(p, rec);
	else if (p->prio < MAX_RT_PRIO || (host_is_partial && p->policy != SCHED_EXT))
		count_untracked(rec);
	return scxu_task_record(p);
}

/* User space loads and attaches this only on kernels on which exit_task comes too late. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(host_task_exits, struct task_struct *p)
{
	untrack_task(p, ROW_REMOVED);
	return 0;
}

/* Give a row to each untracked task in the kernel's task list. */
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

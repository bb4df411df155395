/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The task table: an array with one row for each task. The sweep walks this array instead of the kernel's task list. Only one
 * CPU can walk that list at a time, and the walk touches one more page of each task.
 *
 * Only the host writes the table (bpf/host/task_table.bpf.h). A row holds a reference to its task as long as sched_ext has
 * the task on its list, and no longer.
 */
#ifndef __SCX_UPGRADE_TASK_TABLE_BPF_H
#define __SCX_UPGRADE_TASK_TABLE_BPF_H

#include <scx_upgrade/records.bpf.h>

struct scxu_task_row {
	struct task_struct __kptr *task;
};

/* The SDK sets max_entries to the most tasks that the kernel allows. */
SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_task_row);
} scxu_task_table SEC(".maps");

#endif /* __SCX_UPGRADE_TASK_TABLE_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The task table: all tasks, one row each, dense and in one array. The sweep goes along it. The kernel's lists of processes and
 * threads are read by one CPU at a time, and to read them touches a page more of each task.
 *
 * The host alone writes it (bpf/host/task_table.bpf.h). A row holds a reference for as long as the kernel has the task on sched_ext's
 * list, and no longer.
 */
#ifndef __SCX_UPGRADE_TASK_TABLE_BPF_H
#define __SCX_UPGRADE_TASK_TABLE_BPF_H

#include <scx_upgrade/records.bpf.h>

struct scxu_task_row {
	struct task_struct __kptr *task;
};

/* As many as there can be tasks: set before it is loaded. */
SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_task_row);
} scxu_task_table SEC(".maps");

#endif /* __SCX_UPGRADE_TASK_TABLE_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Snapshots: reads every task's record, and stores values into records. The command loads it over the host's maps, like a
 * policy, and nothing of it stays.
 */
#include <scx_upgrade/records.bpf.h>

char _license[] SEC("license") = "GPL";

/* engine/src/observe/snapshot/records.rs mirrors it. */
struct snapshot_entry {
	u64	start_time;		/* ns since boot; with pid the task's identity */
	u32	pid;
	u32	reserved;
	u64	data[SCX_UPGRADE_TASK_DATA / 8];
};

/* The stores into one record, as steps of a plan. Too large for a program's argument. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_plan);
} snapshot_stores SEC(".maps");

struct snapshot_args {
	u64	key;			/* pid, id of the cgroup, or number of the CPU */
	u64	start_time;		/* of the task */
};

/* One entry for each task with a migrated record. The caller has run a sweep before. */
SEC("iter/task")
int snapshot_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct snapshot_entry e = {};
	struct scxu_task_record *rec;
	int i;

	if (!p || p->flags & (PF_IDLE | PF_EXITING))
		return 0;
	rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);
	if (!rec || scxu_is_stale(rec))
		return 0;
	_Pragma("unroll")
	for (i = 0; i < SCX_UPGRADE_TASK_DATA / 8; i++)
		e.data[i] = *(volatile u64 *)&rec->data[i];
	e.start_time = p->start_boottime;
	e.pid = p->pid;
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

/* Holds the record's lock, so never in the middle of a plan. Each value is one store. */
#define STORE(rec, bytes)								\
do {											\
	struct scxu_plan *stores;							\
	u32 zero = 0;									\
											\
	stores = bpf_map_lookup_elem(&snapshot_stores, &zero);				\
	if (stores) {									\
		bpf_spin_lock(&(rec)->lock);						\
		scxu_apply_plan((u8 *)(rec)->data, bytes, stores, &scxu_host.zero);	\
		bpf_spin_unlock(&(rec)->lock);						\
	}										\
} while (0)

SEC("syscall")
int restore_task(struct snapshot_args *args)
{
	struct task_struct *p = bpf_task_from_pid(args->key);
	struct scxu_task_record *rec = NULL;

	if (!p)
		return -ESRCH;
	if (p->start_boottime == args->start_time)
		rec = scxu_task_record(p);
	if (rec)
		STORE(rec, SCX_UPGRADE_TASK_DATA);
	bpf_task_release(p);
	return rec ? 0 : -ESRCH;
}

SEC("syscall")
int restore_cgroup(struct snapshot_args *args)
{
	struct cgroup *cgrp = bpf_cgroup_from_id(args->key);
	struct scxu_cgroup_record *rec;

	if (!cgrp)
		return -ENOENT;
	rec = scxu_cgroup_record(cgrp);
	if (rec)
		STORE(rec, SCX_UPGRADE_CGROUP_DATA);
	bpf_cgroup_release(cgrp);
	return rec ? 0 : -ENOMEM;
}

SEC("syscall")
int restore_cpu(struct snapshot_args *args)
{
	struct scxu_cpu_record *rec = scxu_cpu_record(args->key);

	if (!rec)
		return -ENOENT;
	STORE(rec, SCX_UPGRADE_CPU_DATA);
	return 0;
}

SEC("syscall")
int restore_global(struct snapshot_args *args)
{
	struct scxu_global_record *rec = scxu_the_global_record();

	STORE(rec, SCX_UPGRADE_GLOBAL_DATA);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Records hold the state. The host owns the maps below, and each policy gets the host's by fd. A policy that is attached
 * directly, without the host, has maps of its own.
 */
#ifndef __SCX_UPGRADE_RECORDS_BPF_H
#define __SCX_UPGRADE_RECORDS_BPF_H

#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>
#include <scx_upgrade/step.bpf.h>

/* Volatile, because user space writes it through a mapping. */
SCXU_GLOBAL volatile struct scxu_host scxu_host SEC(".data.scxu_host");

/*
 * A record of each scope. All scopes have the same header, and the same code. The layout engine keeps the 8 bytes of the
 * header free. The lock is held while a plan is applied, and for nothing else. record_epoch is the epoch that the record was
 * last migrated to; 0 is a record fresh from the allocator. The members behind the data belong to the host.
 */
#define SCXU_RECORD(scope, bytes, ...)		\
	struct scxu_##scope##_record {		\
		struct bpf_spin_lock lock;	\
		u32	record_epoch;		\
		u64	data[(bytes) / 8];	\
		__VA_ARGS__			\
	}

/* dsq_vtime: the task's value when it last left the host, see host_disable(). row: its row, see bpf/host/task_table.bpf.h. */
SCXU_RECORD(task, SCX_UPGRADE_TASK_DATA, u64 dsq_vtime; u32 row; u32 reserved;);
SCXU_RECORD(cgroup, SCX_UPGRADE_CGROUP_DATA);
SCXU_RECORD(cpu, SCX_UPGRADE_CPU_DATA);
SCXU_RECORD(global, SCX_UPGRADE_GLOBAL_DATA);

SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scxu_task_record);
} scxu_task_records SEC(".maps");

SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scxu_cgroup_record);
} scxu_cgroup_records SEC(".maps");

/* The SDK sets max_entries to the number of possible CPUs. */
SCXU_GLOBAL struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_cpu_record);
} scxu_cpu_records SEC(".maps");

/* Hidden, so that libbpf does not mmap it: the kernel refuses to mmap a map with a spin lock. */
SCXU_GLOBAL __hidden struct scxu_global_record scxu_global_record SEC(".data.scxu_global");

#ifndef SCX_UPGRADE_DECLARE
#include <scx_upgrade/call.bpf.h>

/*
 * scxu_migrate_SCOPE_record() applies to a record every plan after its record_epoch up to the current epoch. Either the first
 * op that uses the record does it, or the sweep, and the lock makes sure that each plan is applied once. A fresh record
 * starts from the image, as does a record so old that its plans are no longer kept. The epoch is read before the image: a
 * record made from a half-written image has an older epoch, so its next access applies the plan. At a plan that must wait
 * (scxu_must_wait()) the function stops, and the record stays stale.
 */
#define SCXU_DEFINE_MIGRATE(scope, SCOPE, bytes)						\
static __noinline int scxu_migrate_##scope##_record(struct scxu_##scope##_record *rec)		\
{												\
	struct scxu_conversion_args *args = scxu_conversion_args();				\
	u64 active;										\
	u32 epoch, seen, k, i;									\
												\
	bpf_spin_lock(&rec->lock);								\
	active = *(volatile u64 *)&scxu_host.active;						\
	epoch = active >> 32;									\
	seen = rec->record_epoch;								\
	if (seen == epoch)									\
		goto out;									\
	if (!seen || epoch - seen > SCX_UPGRADE_NR_PLANS) {					\
		bpf_for(i, 0, (bytes) / 8)							\
			rec->data[i & ((bytes) / 8 - 1)] =					\
				scxu_host.scope##_image[i & ((bytes) / 8 - 1)];			\
	} else {										\
		bpf_for(k, seen + 1, epoch + 1) {						\
			volatile struct scxu_plan *plan =					\
				&scxu_host.plans[SCOPE][k & (SCX_UPGRADE_NR_PLANS - 1)];	\
												\
			if (scxu_must_wait(plan, active)) {					\
				epoch = k - 1;							\
				break;								\
			}									\
			scxu_apply_plan((u8 *)rec->data, bytes, plan, &scxu_host.zero);		\
			scxu_apply_calls((u8 *)rec->data, bytes, plan, args);			\
		}										\
	}											\
	rec->record_epoch = epoch;								\
out:												\
	bpf_spin_unlock(&rec->lock);								\
	return 0;										\
}

SCXU_DEFINE_MIGRATE(task, SCXU_SCOPE_TASK, SCX_UPGRADE_TASK_DATA)
SCXU_DEFINE_MIGRATE(cgroup, SCXU_SCOPE_CGROUP, SCX_UPGRADE_CGROUP_DATA)
SCXU_DEFINE_MIGRATE(cpu, SCXU_SCOPE_CPU, SCX_UPGRADE_CPU_DATA)
SCXU_DEFINE_MIGRATE(global, SCXU_SCOPE_GLOBAL, SCX_UPGRADE_GLOBAL_DATA)
#endif /* SCX_UPGRADE_DECLARE */

/* Has @rec missed a plan? Each access to state pays for this check. */
#define scxu_is_stale(rec)	(*(volatile u32 *)&(rec)->record_epoch != scxu_host.active.epoch)

/*
 * An access to a stale record calls these. They are global functions, because the verifier checks a global function once for
 * each program, and a static one at each call. Most of what it has to check is the interpreter of plans. A global function
 * cannot take a record as an argument, so these look the record up again.
 */
#ifdef SCX_UPGRADE_DECLARE
extern int scxu_migrate_record_of_task(struct task_struct *p __arg_trusted __arg_nullable);
extern int scxu_migrate_record_of_cgroup(struct cgroup *cgrp __arg_trusted __arg_nullable);
extern int scxu_migrate_record_of_cpu(u32 cpu);
extern int scxu_migrate_the_global_record(void);
#else
int scxu_migrate_record_of_task(struct task_struct *p __arg_trusted __arg_nullable)
{
	struct scxu_task_record *rec = p ? bpf_task_storage_get(&scxu_task_records, p, 0, 0) : NULL;

	return rec ? scxu_migrate_task_record(rec) : 0;
}

int scxu_migrate_record_of_cgroup(struct cgroup *cgrp __arg_trusted __arg_nullable)
{
	struct scxu_cgroup_record *rec = cgrp ? bpf_cgrp_storage_get(&scxu_cgroup_records, cgrp, 0, 0) : NULL;

	return rec ? scxu_migrate_cgroup_record(rec) : 0;
}

int scxu_migrate_record_of_cpu(u32 cpu)
{
	struct scxu_cpu_record *rec = bpf_map_lookup_elem(&scxu_cpu_records, &cpu);

	return rec ? scxu_migrate_cpu_record(rec) : 0;
}

int scxu_migrate_the_global_record(void)
{
	return scxu_migrate_global_record(&scxu_global_record);
}
#endif /* SCX_UPGRADE_DECLARE */

/*
 * The record of @p, migrated, or NULL if there is no memory for one. It is created on demand: a dying task that has left the
 * task list still passes through ops, and no walk can find it.
 */
static __always_inline struct scxu_task_record *scxu_task_record(struct task_struct *p)
{
	struct scxu_task_record *rec;

	rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec && unlikely(scxu_is_stale(rec)))
		scxu_migrate_record_of_task(p);
	return rec;
}

/* The same for @cgrp. */
static __always_inline struct scxu_cgroup_record *scxu_cgroup_record(struct cgroup *cgrp)
{
	struct scxu_cgroup_record *rec;

	rec = bpf_cgrp_storage_get(&scxu_cgroup_records, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec && unlikely(scxu_is_stale(rec)))
		scxu_migrate_record_of_cgroup(cgrp);
	return rec;
}

/* The record of @cpu, or NULL if there is no such CPU. */
static __always_inline struct scxu_cpu_record *scxu_cpu_record(u32 cpu)
{
	struct scxu_cpu_record *rec = bpf_map_lookup_elem(&scxu_cpu_records, &cpu);

	if (rec && unlikely(scxu_is_stale(rec)))
		scxu_migrate_record_of_cpu(cpu);
	return rec;
}

/* The global record. */
static __always_inline struct scxu_global_record *scxu_the_global_record(void)
{
	if (unlikely(scxu_is_stale(&scxu_global_record)))
		scxu_migrate_the_global_record();
	return &scxu_global_record;
}

/*
 * The init op of a scheduler calls this before any other op runs. It voids all that ops stored under an earlier
 * scxu_run_id(), also where the generation is the same, as after a reattach that was undone. The first base is random, so a
 * number from another host does not match. The step is odd, so all bases of one host differ.
 */
static __always_inline void scxu_renew_run_base(void)
{
	u32 base = scxu_host.run_base;

	scxu_host.run_base = base ? base + 0x9e3779b1 : bpf_get_prandom_u32();
}

/* Record why the kernel disabled the scheduler. */
static __always_inline void scxu_record_exit(struct scx_exit_info *ei)
{
	struct scxu_exit_record *rec = (struct scxu_exit_record *)&scxu_host.exit;

	bpf_probe_read_kernel_str(rec->reason, sizeof(rec->reason), ei->reason);
	bpf_probe_read_kernel_str(rec->msg, sizeof(rec->msg), ei->msg);
	rec->code = ei->exit_code;
	/* Last, so that a reader that sees the kind sees the rest too. */
	__sync_lock_test_and_set(&rec->kind, ei->kind);
}

#endif /* __SCX_UPGRADE_RECORDS_BPF_H */

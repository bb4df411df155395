/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Records: where state lives. The maps below are owned by the host and shared with each policy by fd. A policy that
 * is attached directly, without the host, has its own.
 */
#ifndef __SCX_UPGRADE_RECORDS_BPF_H
#define __SCX_UPGRADE_RECORDS_BPF_H

#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>
#include <scx_upgrade/step.bpf.h>

/* Volatile: user space commits through a mapping of it. */
volatile struct scx_host scx_host SEC(".data.scx_host");

/*
 * A record of each scope: the same header, the same rules, the same code. The layout engine keeps the header's 8 bytes
 * free. The lock is held while a plan is applied, and by no one else. The stamp is the epoch that the record was last
 * brought up to; 0 is a record fresh from the allocator. What follows the data is the host's own.
 */
#define SCX_RECORD(scope, bytes, ...)							\
	struct scx_##scope##_record {							\
		struct bpf_spin_lock lock;						\
		u32	stamp;								\
		u64	data[(bytes) / 8];						\
		__VA_ARGS__								\
	}

/* dsq_vtime: what the task had when it last left the host, see host_disable(). row: its own of the roster, see roster.bpf.h. */
SCX_RECORD(task, SCX_UPGRADE_TASK_DATA, u64 dsq_vtime; u32 row; u32 reserved;);
SCX_RECORD(cgroup, SCX_UPGRADE_CGROUP_DATA);
SCX_RECORD(cpu, SCX_UPGRADE_CPU_DATA);
SCX_RECORD(global, SCX_UPGRADE_GLOBAL_DATA);

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scx_task_record);
} scx_task_records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scx_cgroup_record);
} scx_cgroup_records SEC(".maps");

/* As many as there can be CPUs: set before it is loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scx_cpu_record);
} scx_cpu_records SEC(".maps");

/* Hidden, or libbpf would map it, which the kernel refuses for a map with a lock. */
__hidden struct scx_global_record scx_global_record SEC(".data.scx_global");

#include <scx_upgrade/call.bpf.h>

/*
 * scx_bring_up_SCOPE(): apply to a record every plan between its stamp and the running epoch, exactly once, whoever
 * comes first: an op that touches it or the sweep. A fresh record, or one so old that its plans are no longer kept,
 * starts from the image. The epoch is read before the image: a record made from a half-written image has an older stamp
 * and gets the plan on its next touch. At a plan that must wait for another it stops, and the record stays stale.
 */
#define SCX_DEFINE_BRING_UP(scope, SCOPE, bytes)					\
static __noinline int scx_bring_up_##scope(struct scx_##scope##_record *rec)		\
{											\
	struct scx_conversion_args *args = scx_conversion_args();			\
	u64 active;									\
	u32 epoch, stamp, k, i;								\
											\
	bpf_spin_lock(&rec->lock);							\
	active = *(volatile u64 *)&scx_host.active;					\
	epoch = active >> 32;								\
	stamp = rec->stamp;								\
	if (stamp == epoch)								\
		goto out;								\
	if (!stamp || epoch - stamp > SCX_UPGRADE_NR_PLANS) {				\
		bpf_for(i, 0, (bytes) / 8)						\
			rec->data[i & ((bytes) / 8 - 1)] =				\
				scx_host.scope##_image[i & ((bytes) / 8 - 1)];		\
	} else {									\
		bpf_for(k, stamp + 1, epoch + 1) {					\
			volatile struct scx_plan *plan =				\
				&scx_host.plans[SCOPE][k & (SCX_UPGRADE_NR_PLANS - 1)];	\
											\
			if (scx_must_wait(plan, active)) {				\
				epoch = k - 1;						\
				break;							\
			}								\
			scx_apply_plan((u8 *)rec->data, bytes, plan, &scx_host.zero);	\
			scx_apply_calls((u8 *)rec->data, bytes, plan, args);		\
		}									\
	}										\
	rec->stamp = epoch;								\
out:											\
	bpf_spin_unlock(&rec->lock);							\
	return 0;									\
}

SCX_DEFINE_BRING_UP(task, SCX_SCOPE_TASK, SCX_UPGRADE_TASK_DATA)
SCX_DEFINE_BRING_UP(cgroup, SCX_SCOPE_CGROUP, SCX_UPGRADE_CGROUP_DATA)
SCX_DEFINE_BRING_UP(cpu, SCX_SCOPE_CPU, SCX_UPGRADE_CPU_DATA)
SCX_DEFINE_BRING_UP(global, SCX_SCOPE_GLOBAL, SCX_UPGRADE_GLOBAL_DATA)

/* Has @rec seen every plan? The one check that each access pays. */
#define scx_is_stale(rec)	(*(volatile u32 *)&(rec)->stamp != scx_host.active.epoch)

/*
 * What an access does about a stale record. Global functions, which the verifier follows once for each program and not
 * again at each access: the interpreter is most of what it has to follow. That is why they are told whose record it is,
 * and look it up once more: a global function can be handed no record.
 */
int scx_catch_up_task(struct task_struct *p __arg_trusted __arg_nullable)
{
	struct scx_task_record *rec = p ? bpf_task_storage_get(&scx_task_records, p, 0, 0) : NULL;

	return rec ? scx_bring_up_task(rec) : 0;
}

int scx_catch_up_cgroup(struct cgroup *cgrp __arg_trusted __arg_nullable)
{
	struct scx_cgroup_record *rec = cgrp ? bpf_cgrp_storage_get(&scx_cgroup_records, cgrp, 0, 0) : NULL;

	return rec ? scx_bring_up_cgroup(rec) : 0;
}

int scx_catch_up_cpu(u32 cpu)
{
	struct scx_cpu_record *rec = bpf_map_lookup_elem(&scx_cpu_records, &cpu);

	return rec ? scx_bring_up_cpu(rec) : 0;
}

int scx_catch_up_global(void)
{
	return scx_bring_up_global(&scx_global_record);
}

/*
 * The record of @p, up to date, or NULL when there is no memory for one. Creating on demand covers the tasks that no
 * walk can see: dying ones that have left the task list still pass through ops.
 */
static __always_inline struct scx_task_record *scx_task_record(struct task_struct *p)
{
	struct scx_task_record *rec;

	rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec && unlikely(scx_is_stale(rec)))
		scx_catch_up_task(p);
	return rec;
}

/* The record of @cgrp, likewise. */
static __always_inline struct scx_cgroup_record *scx_cgroup_record(struct cgroup *cgrp)
{
	struct scx_cgroup_record *rec;

	rec = bpf_cgrp_storage_get(&scx_cgroup_records, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec && unlikely(scx_is_stale(rec)))
		scx_catch_up_cgroup(cgrp);
	return rec;
}

/* The record of @cpu, or NULL if there is no such CPU. */
static __always_inline struct scx_cpu_record *scx_cpu_record(u32 cpu)
{
	struct scx_cpu_record *rec = bpf_map_lookup_elem(&scx_cpu_records, &cpu);

	if (rec && unlikely(scx_is_stale(rec)))
		scx_catch_up_cpu(cpu);
	return rec;
}

/* The one global record. */
static __always_inline struct scx_global_record *scx_the_global_record(void)
{
	if (unlikely(scx_is_stale(&scx_global_record)))
		scx_catch_up_global();
	return &scx_global_record;
}

/*
 * The init of a scheduler calls this before any other op runs. What an op noted before under policy_run_id() is void from
 * here on, also where the generation is the same, as after a reattach that was undone. The first base is random, so a
 * number that another host left is not taken for one of this host. The step is odd, so all bases of one host differ.
 */
static __always_inline void scx_renew_run_base(void)
{
	u32 base = scx_host.run_base;

	scx_host.run_base = base ? base + 0x9e3779b1 : bpf_get_prandom_u32();
}

/* Record the kernel's word on why it took the scheduler off. */
static __always_inline void scx_record_exit(struct scx_exit_info *ei)
{
	struct scx_exit_record *rec = (struct scx_exit_record *)&scx_host.exit;

	bpf_probe_read_kernel_str(rec->reason, sizeof(rec->reason), ei->reason);
	bpf_probe_read_kernel_str(rec->msg, sizeof(rec->msg), ei->msg);
	rec->code = ei->exit_code;
	/* Last, so that who sees the kind sees the rest. */
	__sync_lock_test_and_set(&rec->kind, ei->kind);
}

#endif /* __SCX_UPGRADE_RECORDS_BPF_H */

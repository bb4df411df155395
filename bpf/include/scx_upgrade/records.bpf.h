/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Records: where state lives. The maps below are owned by the host and shared with each policy by fd. A policy that
 * is attached directly, without the host, has its own.
 */
#ifndef __SCX_UPGRADE_RECORDS_BPF_H
#define __SCX_UPGRADE_RECORDS_BPF_H

#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>

/*
 * Volatile: user space commits through a mapping of it. The 8-byte header is what the layout engine keeps free at the
 * start of each record.
 */
volatile struct scx_host scx_host SEC(".data.scx_host");

struct scx_task_record {
	struct bpf_spin_lock lock;	/* held while a plan is applied, by no one else */
	u32	stamp;			/* epoch it was last brought up to; 0: fresh from the allocator */
	u64	data[SCX_UPGRADE_TASK_DATA / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scx_task_record);
} scx_task_records SEC(".maps");

/* The one record of the global scope, header included so that one layout serves all scopes. */
u64 scx_global_record[SCX_UPGRADE_GLOBAL_SIZE / 8] SEC(".data.scx_global");

/*
 * One step. The masks keep each store inside the record and naturally aligned, which is what the verifier has to see
 * and what a damaged plan cannot get around. Exact sizes: the neighbours may be written by an op at the same time.
 */
static __always_inline void scx_store(struct scx_task_record *rec, u32 offset, u32 size, u64 value)
{
	u8 *data = (u8 *)rec->data;

	switch (size) {
	case 1:
		*(volatile u8 *)(data + (offset & (SCX_UPGRADE_TASK_DATA - 1))) = value;
		break;
	case 2:
		*(volatile u16 *)(data + (offset & (SCX_UPGRADE_TASK_DATA - 2))) = value;
		break;
	case 4:
		*(volatile u32 *)(data + (offset & (SCX_UPGRADE_TASK_DATA - 4))) = value;
		break;
	case 8:
		*(volatile u64 *)(data + (offset & (SCX_UPGRADE_TASK_DATA - 8))) = value;
		break;
	}
}

/*
 * Apply to @rec every plan between its stamp and the running epoch, exactly once, whoever comes first: an op that
 * touches the task or the sweep. A fresh record, or one so old that its plans are no longer kept, starts from the
 * image. The epoch is read before the image: a record made from a half-written image has an older stamp and gets the
 * plan on its next touch.
 */
static __noinline int scx_bring_up(struct scx_task_record *rec)
{
	u32 epoch, stamp, k, i;

	bpf_spin_lock(&rec->lock);
	epoch = scx_host.active.epoch;
	stamp = rec->stamp;
	if (stamp == epoch)
		goto out;
	if (!stamp || epoch - stamp > SCX_UPGRADE_NR_PLANS) {
		bpf_for(i, 0, SCX_UPGRADE_TASK_DATA / 8)
			rec->data[i & (SCX_UPGRADE_TASK_DATA / 8 - 1)] =
				scx_host.task_image[i & (SCX_UPGRADE_TASK_DATA / 8 - 1)];
	} else {
		bpf_for(k, stamp + 1, epoch + 1) {
			volatile struct scx_plan *plan = &scx_host.plans[k & (SCX_UPGRADE_NR_PLANS - 1)];

			bpf_for(i, 0, plan->nr_steps) {
				volatile struct scx_step *s = &plan->steps[i & (SCX_UPGRADE_MAX_STEPS - 1)];

				scx_store(rec, s->offset, s->size, s->value);
			}
		}
	}
	rec->stamp = epoch;
out:
	bpf_spin_unlock(&rec->lock);
	return 0;
}

/*
 * The record of @p, up to date, or NULL when there is no memory for one. Creating on demand covers the tasks that no
 * walk can see: dying ones that have left the task list still pass through ops.
 */
static __always_inline struct scx_task_record *scx_task_record(struct task_struct *p)
{
	struct scx_task_record *rec;

	rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec && unlikely(*(volatile u32 *)&rec->stamp != scx_host.active.epoch))
		scx_bring_up(rec);
	return rec;
}

/* Create the DSQs in a list that 0 ends. Only where a program may sleep. */
static __always_inline s32 scx_create_queues(const volatile u64 *ids)
{
	s32 i, ret;

	bpf_for(i, 0, SCX_UPGRADE_MAX_QUEUES) {
		u64 id = ids[i & (SCX_UPGRADE_MAX_QUEUES - 1)];

		if (!id)
			break;
		ret = scx_bpf_create_dsq(id, -1);
		if (ret)
			return ret;
	}
	return 0;
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

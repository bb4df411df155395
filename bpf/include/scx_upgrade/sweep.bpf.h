/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep: bring every record up to date. Idempotent, so a sweep that was cut off is simply run again. What is born
 * meanwhile starts from the new image.
 *
 * The host has these programs. A policy with conversions of its own has them too: the same code, with its conversions in
 * it, for the plans that call them.
 */
#ifndef __SCX_UPGRADE_SWEEP_BPF_H
#define __SCX_UPGRADE_SWEEP_BPF_H

#include <scx_upgrade/records.bpf.h>

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

/* What one record adds to a sweep. */
#define SCX_SWEEP(args, rec, scope)						\
do {										\
	(args)->visited++;							\
	if (!(rec)) {								\
		(args)->missing++;						\
	} else if (scx_is_stale(rec)) {						\
		scx_bring_up_##scope(rec);					\
		(args)->applied++;						\
	}									\
} while (0)

static __always_inline int scx_sweep_tasks(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = {};
	struct task_struct *p;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		struct scx_task_record *rec;

		if (p->flags & PF_IDLE)
			continue;
		rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		SCX_SWEEP(&swept, rec, task);
	}
	bpf_rcu_read_unlock();
	*args = swept;
	return 0;
}

static __always_inline int scx_sweep_cgroups(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = {};
	struct cgroup_subsys_state *pos;
	struct cgroup *root;

	root = bpf_cgroup_from_id(1);
	if (!root)
		return -ENOENT;
	bpf_rcu_read_lock();
	bpf_for_each(css, pos, &root->self, BPF_CGROUP_ITER_DESCENDANTS_PRE) {
		struct cgroup *cgrp = pos->cgroup;
		struct scx_cgroup_record *rec;

		if (!cgrp)
			continue;
		rec = bpf_cgrp_storage_get(&scx_cgroup_records, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		SCX_SWEEP(&swept, rec, cgroup);
	}
	bpf_rcu_read_unlock();
	bpf_cgroup_release(root);
	*args = swept;
	return 0;
}

static __always_inline int scx_sweep_cpus(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = {};
	u32 cpu;

	bpf_for(cpu, 0, scx_bpf_nr_cpu_ids()) {
		struct scx_cpu_record *rec = bpf_map_lookup_elem(&scx_cpu_records, &cpu);

		SCX_SWEEP(&swept, rec, cpu);
	}
	*args = swept;
	return 0;
}

static __always_inline int scx_sweep_global(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = {};
	struct scx_global_record *rec = &scx_global_record;

	SCX_SWEEP(&swept, rec, global);
	*args = swept;
	return 0;
}

/* User space knows them by these names. */
#define SCX_SWEEP_PROGRAM(what)								\
	SEC("syscall")									\
	int sweep_##what(struct scx_sweep_args *args)					\
	{										\
		return scx_sweep_##what(args);						\
	}

#define SCX_SWEEP_PROGRAMS								\
	SCX_SWEEP_PROGRAM(tasks)							\
	SCX_SWEEP_PROGRAM(cgroups)							\
	SCX_SWEEP_PROGRAM(cpus)								\
	SCX_SWEEP_PROGRAM(global)

#endif /* __SCX_UPGRADE_SWEEP_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep: bring every record up to date. Idempotent, so a sweep that was cut off is simply run again. What is born
 * meanwhile starts from the new image.
 *
 * The host has these programs. A policy with conversions of its own has them too: the same code, with its conversions in
 * it, for the plans that call them. And so has bpf/tools/compiled.bpf.c, with a plan in instructions instead of the
 * interpreter.
 */
#ifndef __SCX_UPGRADE_SWEEP_BPF_H
#define __SCX_UPGRADE_SWEEP_BPF_H

#include <scx_upgrade/task_table.bpf.h>

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

/* How a stale record is brought up to date; false if that is left to another sweep. */
#ifndef SCXU_SWEEP_MIGRATE
#define SCXU_SWEEP_MIGRATE(scope, rec)	(scxu_migrate_##scope##_record(rec), true)
#endif

/* What one record adds to a sweep. */
#define SCXU_SWEEP(args, rec, scope)			\
do {							\
	(args)->visited++;				\
	if (!(rec)) {					\
		(args)->missing++;			\
	} else if (scxu_is_stale(rec)) {		\
		if (SCXU_SWEEP_MIGRATE(scope, rec))	\
			(args)->applied++;		\
		else					\
			(args)->remaining++;		\
	}						\
} while (0)

/* So many rows are taken at once, some microseconds of work. A power of two. */
#define SCXU_SWEEP_TAKE	64

/*
 * The lock of a record turns interrupts off and on again, which is a good part of what it costs, and nothing where they are off: so
 * they are, for the rows that were taken at once. From Linux 6.14 on; before, the lock does it. It also means that who has taken rows
 * is done with them before anybody else runs on its CPU.
 */
static __always_inline void scxu_irq_disable(unsigned long *flags)
{
	if (bpf_ksym_exists(bpf_local_irq_save))
		bpf_local_irq_save(flags);
}

static __always_inline void scxu_irq_restore(unsigned long *flags)
{
	if (bpf_ksym_exists(bpf_local_irq_save))
		bpf_local_irq_restore(flags);
}

/*
 * Take the next rows, for nobody else to sweep: the first of them is *@row. False if there are none, or if another sweep has begun
 * meanwhile, because whoever began this one was killed.
 */
static __always_inline bool scxu_sweep_take(const struct scxu_sweep_args *args, u32 *row)
{
	u64 taken = scxu_host.task_table.sweep, seen;

	while (can_loop) {
		if (taken >> 32 != args->sweep || (u32)taken >= scxu_host.task_table.rows)
			return false;
		seen = __sync_val_compare_and_swap(&scxu_host.task_table.sweep, taken, taken + SCXU_SWEEP_TAKE);
		if (seen == taken) {
			*row = taken;
			return true;
		}
		taken = seen;
	}
	return false;
}

/*
 * Some of all tasks: several CPUs run this at once, and each again until there is no more. @args has the count, because the verifier
 * knows nothing of what comes from user space: it would follow a counter of our own.
 */
static __always_inline void scxu_sweep_task_table(struct scxu_sweep_args *args)
{
	unsigned long flags;
	u32 row;

	while (can_loop) {
		if (args->visited >= args->max_records) {
			args->has_more = 1;
			return;
		}
		if (!scxu_sweep_take(args, &row))
			return;
		scxu_irq_disable(&flags);
		do {
			struct scxu_task_row *own = bpf_map_lookup_elem(&scxu_task_table, &row);
			struct scxu_task_record *rec;
			struct task_struct *p;

			if (!own)
				break;
			p = own->task;
			if (!p)
				continue;
			rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);
			SCXU_SWEEP(args, rec, task);
		} while ((++row & (SCXU_SWEEP_TAKE - 1)) && can_loop);
		scxu_irq_restore(&flags);
	}
	/* Enough for once. */
	args->has_more = 1;
}

/*
 * Who runs this stands above sched_ext, and whom it took the CPU from waits for it at the head of the CPU's own queue, with what it
 * had left of its slice: in a pause that one would go on, and nobody else. Have the policy say anew whose turn it is. A kernel
 * before 6.19 can do that only in an op that costs each switch to another class.
 */
static __always_inline void scxu_sweep_yield(void)
{
	if (bpf_ksym_exists(scx_bpf_reenqueue_local___v2___compat))
		scx_bpf_reenqueue_local___v2___compat();
}

static __always_inline int scxu_do_sweep_tasks(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = *args;

	/* The context is read here, and not by an offset that the compiler makes further down: a verifier up to 7.0 refuses. */
	barrier();
	swept.has_more = 0;
	bpf_rcu_read_lock();
	scxu_sweep_task_table(&swept);
	bpf_rcu_read_unlock();
	if (swept.has_more && swept.yields)
		scxu_sweep_yield();
	*args = swept;
	return 0;
}

/*
 * The same for all that the kernel's lists have, in one go and by one CPU: for those that have no row. Who has no record gets one.
 * Before the host is attached that is everybody.
 */
static __always_inline int scxu_do_sweep_untracked(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = {};
	struct task_struct *p;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		struct scxu_task_record *rec;

		if (p->flags & PF_IDLE)
			continue;
		rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		SCXU_SWEEP(&swept, rec, task);
	}
	bpf_rcu_read_unlock();
	*args = swept;
	return 0;
}

static __always_inline int scxu_do_sweep_cgroups(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = {};
	struct cgroup_subsys_state *pos;
	struct cgroup *root;

	root = bpf_cgroup_from_id(1);
	if (!root)
		return -ENOENT;
	bpf_rcu_read_lock();
	bpf_for_each(css, pos, &root->self, BPF_CGROUP_ITER_DESCENDANTS_PRE) {
		struct cgroup *cgrp = pos->cgroup;
		struct scxu_cgroup_record *rec;

		if (!cgrp)
			continue;
		rec = bpf_cgrp_storage_get(&scxu_cgroup_records, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		SCXU_SWEEP(&swept, rec, cgroup);
	}
	bpf_rcu_read_unlock();
	bpf_cgroup_release(root);
	*args = swept;
	return 0;
}

static __always_inline int scxu_do_sweep_cpus(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = {};
	u32 cpu;

	bpf_for(cpu, 0, scx_bpf_nr_cpu_ids()) {
		struct scxu_cpu_record *rec = bpf_map_lookup_elem(&scxu_cpu_records, &cpu);

		SCXU_SWEEP(&swept, rec, cpu);
	}
	*args = swept;
	return 0;
}

static __always_inline int scxu_do_sweep_global(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = {};
	struct scxu_global_record *rec = &scxu_global_record;

	SCXU_SWEEP(&swept, rec, global);
	*args = swept;
	return 0;
}

/* User space knows them by these names. */
#define SCXU_SWEEP_PROGRAM(what)				\
	SEC("syscall")						\
	int scxu_sweep_##what(struct scxu_sweep_args *args)	\
	{							\
		return scxu_do_sweep_##what(args);		\
	}

#define SCXU_SWEEP_PROGRAMS		\
	SCXU_SWEEP_PROGRAM(tasks)	\
	SCXU_SWEEP_PROGRAM(untracked)	\
	SCXU_SWEEP_PROGRAM(cgroups)	\
	SCXU_SWEEP_PROGRAM(cpus)	\
	SCXU_SWEEP_PROGRAM(global)

#endif /* __SCX_UPGRADE_SWEEP_BPF_H */

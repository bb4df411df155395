/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep migrates every record. It is idempotent: a sweep that was interrupted is simply run again. A record that is
 * created meanwhile starts from the new image.
 *
 * The host has these programs. A policy with conversions of its own has them too, for plans that call its conversions.
 * bpf/tools/compiled.bpf.c has them with the plan as instructions in place of the interpreter.
 */
#ifndef __SCX_UPGRADE_SWEEP_BPF_H
#define __SCX_UPGRADE_SWEEP_BPF_H

#include <scx_upgrade/task_table.bpf.h>

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

/* Migrates a stale record. False if this program leaves that to another one. */
#ifndef SCXU_SWEEP_MIGRATE
#define SCXU_SWEEP_MIGRATE(scope, rec)	(scxu_migrate_##scope##_record(rec), true)
#endif

/* Visit one record, and count it. */
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

/* How many rows a worker takes at a time: some microseconds of work. A power of two. */
#define SCXU_SWEEP_TAKE	64

/*
 * bpf_spin_lock() disables interrupts, which is a large part of its cost, and cheap where they are disabled already. So a
 * worker disables them once for all rows that it took. It also means that a worker finishes its rows before another task runs
 * on its CPU. Before Linux 6.14 there is no kfunc for it, and each lock does it.
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
 * Take the next SCXU_SWEEP_TAKE rows for this worker, from *@row on. False if none are left, or if another sweep has begun
 * because the command that began this one was killed.
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
 * Sweep a part of the task table. Several CPUs run this at the same time, and user space calls it again until has_more is 0.
 * The count of tasks is in @args and not in a variable: the verifier knows nothing about memory from user space, but would
 * follow a counter of its own through the loop.
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
	/* can_loop ended the loop. */
	args->has_more = 1;
}

/*
 * A caller in a class above sched_ext has preempted a task. That task waits at the head of the CPU's local DSQ with the rest
 * of its slice. When the caller sleeps between two calls, the kernel would run that task and no other. So re-enqueue the
 * local DSQ, and let the policy choose. Before Linux 6.19 the kernel allows this only in cpu_release, which costs time on
 * each switch to another class.
 */
static __always_inline void scxu_sweep_yield(void)
{
	if (bpf_ksym_exists(scx_bpf_reenqueue_local___v2___compat))
		scx_bpf_reenqueue_local___v2___compat();
}

static __always_inline int scxu_do_sweep_tasks(struct scxu_sweep_args *args)
{
	struct scxu_sweep_args swept = *args;

	/*
	 * Copy the context here: the compiler would access it at a variable offset below, which a verifier up to 7.0 refuses.
	 */
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
 * The same along the kernel's task list, in one call on one CPU, for tasks without a row. It also creates missing records:
 * before the host is attached no task has one.
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

/* User space finds the programs by these names. */
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

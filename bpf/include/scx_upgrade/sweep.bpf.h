/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep: bring every record up to date. Idempotent, so a sweep that was cut off is simply run again. What is born
 * meanwhile starts from the new image.
 *
 * The host has these programs. A policy with conversions of its own has them too: the same code, with its conversions in
 * it, for the plans that call them. And so has bpf/compiled.bpf.c, with a plan in instructions instead of the
 * interpreter.
 */
#ifndef __SCX_UPGRADE_SWEEP_BPF_H
#define __SCX_UPGRADE_SWEEP_BPF_H

#include <scx_upgrade/records.bpf.h>

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

/* How a stale record is brought up to date; false if that is left to another sweep. */
#ifndef SCX_SWEEP_BRING_UP
#define SCX_SWEEP_BRING_UP(scope, rec)	(scx_bring_up_##scope(rec), true)
#endif

/* What one record adds to a sweep. */
#define SCX_SWEEP(args, rec, scope)						\
do {										\
	(args)->visited++;							\
	if (!(rec)) {								\
		(args)->missing++;						\
	} else if (scx_is_stale(rec)) {						\
		if (SCX_SWEEP_BRING_UP(scope, rec))				\
			(args)->applied++;					\
		else								\
			(args)->left++;						\
	}									\
} while (0)

/* One PID in so many speaks for all when it comes to how far the sweep is. The verifier would follow a counter. */
#define SCX_SWEEP_WORD	1024

/* Is the task part of our share of a process that is shared? */
static __always_inline bool scx_sweep_shares(const struct scx_sweep_args *args, const struct task_struct *p)
{
	return (p->pid & (args->parts - 1)) == args->part;
}

/* Does the process fall to us? To whoever comes first. */
static __always_inline bool scx_sweep_takes(const struct scx_sweep_args *args, struct scx_task_record *leader)
{
	u64 last = leader->sweep;

	return last != args->sweep && __sync_val_compare_and_swap(&leader->sweep, last, args->sweep) == last;
}

/*
 * Some of all tasks: several CPUs run this at once, and each again until there is no more. A process is for the first that
 * comes to it, so the others need not walk its threads; one that has many is shared by all. It ends between two processes
 * when it has had enough for once: user space then lets others run. Threads of a process that passes that mark meanwhile may
 * be left: who touches them first brings them up to date, as ever.
 */
static __always_inline int scx_sweep_tasks(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = *args;
	struct task_struct *pos, *leader, *p;

	swept.more = 0;
	bpf_rcu_read_lock();
	bpf_for_each(task, pos, NULL, BPF_TASK_ITER_ALL_PROCS) {
		struct scx_task_record *rec;
		bool shared = pos->signal->nr_threads > swept.whole;

		if (pos->flags & PF_IDLE)
			continue;
		if (swept.visited >= swept.budget) {
			swept.more = 1;
			break;
		}
		rec = bpf_task_storage_get(&scx_task_records, pos, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		/* Without a record nobody can say that it is theirs. */
		if ((!rec || shared) ? !swept.first : !scx_sweep_takes(&swept, rec))
			continue;
		/* The kernel wants a reference to where a walk begins. Who has none to give any more is gone. */
		leader = bpf_task_acquire(pos);
		if (!leader)
			continue;
		bpf_for_each(task, p, leader, BPF_TASK_ITER_PROC_THREADS) {
			if (shared && !scx_sweep_shares(&swept, p))
				continue;
			if (!(p->pid & (SCX_SWEEP_WORD - 1)))
				__sync_fetch_and_add(&scx_host.swept, SCX_SWEEP_WORD);
			rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
			SCX_SWEEP(&swept, rec, task);
		}
		bpf_task_release(leader);
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

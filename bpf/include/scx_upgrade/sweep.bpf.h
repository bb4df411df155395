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

/* From so many threads on a process is worth another CPU's coming to help. */
#define SCX_SWEEP_HELP	1024

/*
 * What a process's leader has of a sweep: the sweep's number, and below it a bit for each block of its threads that someone
 * sweeps, and one that tells that somebody has been through all of them. Blocks are of 512 PIDs in a row, and again after
 * 16 of them.
 */
#define SCX_SWEEP_MARKS		((1ULL << SCX_SWEEP_MARK_BITS) - 1)
#define SCX_SWEEP_DONE		(1ULL << 16)
#define SCX_SWEEP_BLOCK(p)	(1ULL << (((p)->pid >> 9) & 15))

/* Does the process fall to us? To whoever comes first; to who helps if it is not done. */
static __always_inline bool scx_sweep_takes(const struct scx_sweep_args *args, struct scx_task_record *head)
{
	u64 last = *(volatile u64 *)&head->sweep;

	if (args->help)
		return (last & ~SCX_SWEEP_MARKS) == args->sweep && !(last & SCX_SWEEP_DONE);
	return (last & ~SCX_SWEEP_MARKS) != args->sweep &&
	       __sync_val_compare_and_swap(&head->sweep, last, args->sweep) == last;
}

/* The threads of a process, but for the blocks that others have. @head is the record of its leader, which has the marks. */
static __always_inline void scx_sweep_process(struct scx_sweep_args *args, struct task_struct *leader,
					      struct scx_task_record *head)
{
	u64 mine = 0, theirs = 0;
	struct task_struct *p;

	bpf_for_each(task, p, leader, BPF_TASK_ITER_PROC_THREADS) {
		u64 block = SCX_SWEEP_BLOCK(p);
		struct scx_task_record *rec;

		if (!(mine & block)) {
			if (theirs & block) {
				/* Who has a block may meet threads of it up to the end. */
				if (!mine && head && (*(volatile u64 *)&head->sweep & SCX_SWEEP_DONE))
					break;
				continue;
			}
			if (head && (__sync_fetch_and_or(&head->sweep, block) & block)) {
				theirs |= block;
				continue;
			}
			mine |= block;
		}
		if (!(p->pid & (SCX_SWEEP_WORD - 1)))
			__sync_fetch_and_add(&scx_host.swept, SCX_SWEEP_WORD);
		rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		SCX_SWEEP(args, rec, task);
	}
	if (head)
		__sync_fetch_and_or(&head->sweep, SCX_SWEEP_DONE);
}

/* What the others are still at, for a CPU that finds no more processes of its own. */
static __always_inline int scx_sweep_help(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = *args;
	struct task_struct *leader;
	struct scx_task_record *head;
	u32 part;

	swept.more = 0;
	bpf_rcu_read_lock();
	bpf_for(part, 0, SCX_UPGRADE_MAX_SWEEPERS) {
		leader = bpf_task_from_pid(READ_ONCE(scx_host.sweeping[part & (SCX_UPGRADE_MAX_SWEEPERS - 1)]));
		if (!leader)
			continue;
		head = bpf_task_storage_get(&scx_task_records, leader, 0, 0);
		if (head && scx_sweep_takes(&swept, head))
			scx_sweep_process(&swept, leader, head);
		bpf_task_release(leader);
	}
	bpf_rcu_read_unlock();
	*args = swept;
	return 0;
}

/*
 * Some of all tasks: several CPUs run this at once, and each again until there is no more. A process is for the first that
 * comes to it, so the others need not walk its threads. It ends between two processes when it has had enough for once: user
 * space then lets others run. Threads of a process that passes that mark meanwhile may be left: who touches them first brings
 * them up to date, as ever.
 */
static __always_inline int scx_sweep_tasks(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = *args;
	u32 *at = (u32 *)&scx_host.sweeping[swept.part & (SCX_UPGRADE_MAX_SWEEPERS - 1)];
	struct task_struct *pos, *leader;
	struct scx_task_record *head;

	if (args->help)
		return scx_sweep_help(args);
	swept.more = 0;
	bpf_rcu_read_lock();
	bpf_for_each(task, pos, NULL, BPF_TASK_ITER_ALL_PROCS) {
		if (pos->flags & PF_IDLE)
			continue;
		if (swept.visited >= swept.budget) {
			swept.more = 1;
			break;
		}
		head = bpf_task_storage_get(&scx_task_records, pos, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		/* Without a record nobody can say that it is theirs. */
		if (head ? !scx_sweep_takes(&swept, head) : !swept.first)
			continue;
		/* The kernel wants a reference to where a walk begins. Who has none to give any more is gone. */
		leader = bpf_task_acquire(pos);
		if (!leader)
			continue;
		if (leader->signal->nr_threads >= SCX_SWEEP_HELP)
			WRITE_ONCE(*at, leader->pid);
		scx_sweep_process(&swept, leader, head);
		WRITE_ONCE(*at, 0);
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

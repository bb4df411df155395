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

extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

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

/* After so many tasks, some microseconds, a CPU lets interrupts in, says where it is, and may pause. A power of two. */
#define SCX_SWEEP_WORD	64
/* With so many threads left it is worth another CPU's coming to help. */
#define SCX_SWEEP_HELP	512

/*
 * The lock of a record turns interrupts off and on again, which is a good part of what it costs, and nothing where they are off: so
 * they are, for a few tasks at once. From Linux 6.14 on; before, the lock does it.
 */
static __always_inline void scx_irqs_off(unsigned long *flags)
{
	if (bpf_ksym_exists(bpf_local_irq_save))
		bpf_local_irq_save(flags);
}

static __always_inline void scx_irqs_on(unsigned long *flags)
{
	if (bpf_ksym_exists(bpf_local_irq_save))
		bpf_local_irq_restore(flags);
}

/* Does the process fall to us? To whoever comes first. */
static __always_inline bool scx_sweep_takes(const struct scx_sweep_args *args, struct scx_task_record *leader)
{
	u64 last = leader->sweep;

	return last != args->sweep && __sync_val_compare_and_swap(&leader->sweep, last, args->sweep) == last;
}

/*
 * One of the threads of a process; false if it is not for us, now or ever, and what is behind it neither. @args has the count,
 * because the verifier knows nothing of what comes from user space: it would follow a counter of our own.
 */
static __always_inline bool scx_sweep_thread(struct scx_sweep_args *args, volatile struct scx_sweeper *own,
					     struct task_struct *p, unsigned long *flags)
{
	struct scx_task_record *rec;
	u32 stop = own->stop;

	/* Mostly nobody has asked, and then this does not touch one line more of each task. */
	if (stop && p->pid == stop)
		return false;
	if (!(args->visited & (SCX_SWEEP_WORD - 1))) {
		scx_irqs_on(flags);
		scx_irqs_off(flags);
		own->at = p->pid;
		if (args->visited >= args->budget) {
			args->more = SCX_SWEEP_PAUSE;
			return false;
		}
		own->left -= SCX_SWEEP_WORD;
		__sync_fetch_and_add(&scx_host.swept, SCX_SWEEP_WORD);
	}
	rec = bpf_task_storage_get(&scx_task_records, p, 0, 0);
	if (!rec) {
		/* What it is made of may have to come by an interrupt. */
		scx_irqs_on(flags);
		rec = bpf_task_storage_get(&scx_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		scx_irqs_off(flags);
	}
	SCX_SWEEP(args, rec, task);
	return true;
}

/* @p and those behind it in its process, as far as they are for us. @it is at @p. */
static __always_inline void scx_sweep_threads(struct scx_sweep_args *args, volatile struct scx_sweeper *own,
					      struct bpf_iter_task *it, struct task_struct *p)
{
	unsigned long flags;

	/* Not before the iterator is there: the verifier compares what is held by the order in which it was taken. */
	scx_irqs_off(&flags);
	while (p && scx_sweep_thread(args, own, p, &flags))
		p = bpf_iter_task_next(it);
	scx_irqs_on(&flags);
}

/* Where a walk over the rest of @sweeper's process begins, and null if it is at none. With a reference. */
static __always_inline struct task_struct *scx_sweep_from(volatile struct scx_sweeper *sweeper)
{
	u32 at = sweeper->at, leader = sweeper->leader;
	struct task_struct *from;

	if (!at)
		return NULL;
	from = bpf_task_from_pid(at);
	if (from && from->tgid == leader)
		return from;
	/* It has ended: all of them once more. To most that does nothing. */
	if (from)
		bpf_task_release(from);
	return bpf_task_from_pid(leader);
}

/*
 * The rest of a process. Our own, that we paused in; or for a CPU that finds no more processes that nobody is at, what lies far
 * ahead of another in its process. The threads up to there cost us a walk, and it the sweep; with three fifths of what is left
 * both are done at the same time.
 *
 * Nothing is missed. Who stops at a thread was told to by one who sweeps from that thread on. If the other has passed it, or
 * it has ended, or the other is at another process by now, nobody stops there and some is swept twice, which does nothing.
 */
static __always_inline void scx_sweep_rest(struct scx_sweep_args *args, volatile struct scx_sweeper *own)
{
	volatile struct scx_sweeper *other = &scx_host.sweepers[(args->help - 1) & (SCX_UPGRADE_MAX_SWEEPERS - 1)];
	bool resume = own->at;
	u32 left = other->left, ahead = resume ? 0 : left / 5 * 3;
	struct task_struct *from, *p;
	struct bpf_iter_task it;

	/* As a signed number: it may be less than none. */
	if (!resume && (s32)left < SCX_SWEEP_HELP)
		return;
	bpf_rcu_read_lock();
	from = scx_sweep_from(resume ? own : other);
	if (from) {
		bpf_iter_task_new(&it, from, BPF_TASK_ITER_PROC_THREADS);
		p = bpf_iter_task_next(&it);
		if (ahead) {
			while (p && --ahead)
				p = bpf_iter_task_next(&it);
			if (p) {
				own->left = left / 5 * 2;
				own->leader = p->tgid;
				own->stop = __sync_lock_test_and_set(&other->stop, p->pid);
			}
		}
		scx_sweep_threads(args, own, &it, p);
		bpf_iter_task_destroy(&it);
		bpf_task_release(from);
	}
	bpf_rcu_read_unlock();
	if (args->more)
		return;
	own->at = 0;
	if (resume)
		args->more = SCX_SWEEP_ON;
}

/*
 * Some of all tasks: several CPUs run this at once, and each again until there is no more. A process is for the first that
 * comes to it, so the others need not walk its threads. When it has had enough for once, user space lets others run.
 */
static __always_inline void scx_sweep_processes(struct scx_sweep_args *args, volatile struct scx_sweeper *own)
{
	struct task_struct *pos, *leader;
	struct bpf_iter_task it;

	bpf_rcu_read_lock();
	bpf_for_each(task, pos, NULL, BPF_TASK_ITER_ALL_PROCS) {
		struct scx_task_record *rec;

		if (pos->flags & PF_IDLE)
			continue;
		rec = bpf_task_storage_get(&scx_task_records, pos, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		/* Without a record nobody can say that it is theirs. */
		if (rec ? rec->sweep == args->sweep : !args->first)
			continue;
		if (args->visited >= args->budget) {
			args->more = SCX_SWEEP_PAUSE;
			break;
		}
		if (rec && !scx_sweep_takes(args, rec))
			continue;
		/* The kernel wants a reference to where a walk begins. Who has none to give any more is gone. */
		leader = bpf_task_acquire(pos);
		if (!leader)
			continue;
		own->stop = 0;
		own->leader = leader->pid;
		own->left = leader->signal->nr_threads;
		bpf_iter_task_new(&it, leader, BPF_TASK_ITER_PROC_THREADS);
		scx_sweep_threads(args, own, &it, bpf_iter_task_next(&it));
		bpf_iter_task_destroy(&it);
		bpf_task_release(leader);
		if (args->more)
			break;
		own->at = 0;
	}
	bpf_rcu_read_unlock();
}

/*
 * Who runs this stands above sched_ext, and whom it took the CPU from waits for it at the head of the CPU's own queue, with what it
 * had left of its slice: in a pause that one would go on, and nobody else. Have the policy say anew whose turn it is. A kernel
 * before 6.19 can do that only in an op that costs each switch to another class.
 */
static __always_inline void scx_sweep_give_way(void)
{
	if (bpf_ksym_exists(scx_bpf_reenqueue_local___v2___compat))
		scx_bpf_reenqueue_local___v2___compat();
}

static __always_inline int scx_sweep_tasks(struct scx_sweep_args *args)
{
	struct scx_sweep_args swept = *args;
	volatile struct scx_sweeper *own = &scx_host.sweepers[swept.part & (SCX_UPGRADE_MAX_SWEEPERS - 1)];

	/* The context is read here, and not by an offset that the compiler makes further down: a verifier up to 7.0 refuses. */
	barrier();
	swept.more = SCX_SWEEP_DONE;
	if (swept.help || own->at)
		scx_sweep_rest(&swept, own);
	else
		scx_sweep_processes(&swept, own);
	if (swept.more == SCX_SWEEP_PAUSE && swept.gives_way)
		scx_sweep_give_way();
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

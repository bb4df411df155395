/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Let a CPU rest though the task on it wants to go on.
 *
 * Where dispatch finds no task the kernel goes on with the one that ran, without asking, unless the scheduler was attached
 * with SCX_OPS_ENQ_LAST (balance_one() in kernel/sched/ext.c). The host is not: it would change that for every policy. So a
 * CPU cannot be made idle by giving it nothing. But the kernel does take a task off for another one, whichever: a work item
 * of this CPU makes a kernel thread runnable, which runs for a moment; the task that it displaces passes the policy's
 * enqueue; and when the thread sleeps again, dispatch may leave the CPU idle.
 *
 *	dispatch:	nothing is to run here, not even @prev:		scxu_force_idle_cpu(cpu); return
 *	enqueue:	if (scxu_is_per_cpu_kthread(p)) { scxu_enqueue_per_cpu_kthread(p, slice, enq_flags); return; }
 *
 * A work item cannot be started in dispatch, which holds the lock that waking its thread takes: a timer that is due at
 * once does it. Until the thread runs @prev goes on, for some microseconds.
 */
#ifndef __SCX_UPGRADE_FORCE_IDLE_BPF_H
#define __SCX_UPGRADE_FORCE_IDLE_BPF_H

#ifdef SCX_UPGRADE_DECLARE
#error "include this in the source that includes policy.bpf.h: it defines a map"
#endif

#include <scx_upgrade/lib/kthread.bpf.h>
#include <scx_upgrade/work.bpf.h>

struct scxu_force_idle {
	struct bpf_timer	begin;
	struct bpf_wq		thread;
	u32			wanted;
};

/* As many as there can be CPUs: set before it is loaded. Pinned with the policy's slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scxu_force_idle);
} scxu_force_idle SEC(".maps");

static int scxu_force_idle_nothing(void *map, int *key, void *value)
{
	return 0;
}

static int scxu_force_idle_begin(void *map, int *key, struct scxu_force_idle *rest)
{
	scxu_start_work(&rest->thread, &scxu_force_idle, scxu_force_idle_nothing);
	return 0;
}

/* See above. Only in dispatch, for its own @cpu. */
static __noinline int scxu_force_idle_cpu(s32 cpu)
{
	u32 key = cpu;
	struct scxu_force_idle *rest = bpf_map_lookup_elem(&scxu_force_idle, &key);

	if (!rest)
		return -ENOENT;
	rest->wanted = 1;
	/* The second time the kernel says that it is initialised already. */
	bpf_timer_init(&rest->begin, &scxu_force_idle, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&rest->begin, scxu_force_idle_begin);
	return bpf_timer_start(&rest->begin, 0, BPF_F_TIMER_CPU_PIN);
}

/* For enqueue: the threads of a CPU run there as they come, and at once where one is to make it rest. */
static __noinline int scxu_enqueue_per_cpu_kthread(struct task_struct *p, u64 slice, u64 enq_flags)
{
	u32 key = scx_bpf_task_cpu(p);
	struct scxu_force_idle *rest = bpf_map_lookup_elem(&scxu_force_idle, &key);

	if (rest && rest->wanted) {
		rest->wanted = 0;
		enq_flags |= SCX_ENQ_PREEMPT;
	}
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice, enq_flags);
	return 0;
}

/*
 * May @cpu, which is dispatching, take @p from a queue? The kernel ejects a scheduler that moves a task to a CPU's local
 * DSQ which may not run there.
 */
static __always_inline bool scxu_may_take(struct task_struct *p, s32 cpu)
{
	if (p->migration_disabled && scx_bpf_task_cpu(p) != cpu)
		return false;
	return bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

#endif /* __SCX_UPGRADE_FORCE_IDLE_BPF_H */

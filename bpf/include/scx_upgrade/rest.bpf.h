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
 *	dispatch:	nothing is to run here, not even @prev:		rest_cpu(cpu); return
 *	enqueue:	if (is_cpu_thread(p)) { enqueue_cpu_thread(p, slice, enq_flags); return; }
 *
 * A work item cannot be started in dispatch, which holds the lock that waking its thread takes: a timer that is due at
 * once does it. Until the thread runs @prev goes on, for some microseconds.
 */
#ifndef __SCX_UPGRADE_REST_BPF_H
#define __SCX_UPGRADE_REST_BPF_H

#include <scx_upgrade/kthread.bpf.h>
#include <scx_upgrade/work.bpf.h>

struct scx_rest {
	struct bpf_timer	begin;
	struct bpf_wq		thread;
	u32			wanted;
};

/* As many as there can be CPUs: set before it is loaded. Pinned with the policy's slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scx_rest);
} scx_rest SEC(".maps");

static int rest_nothing(void *map, int *key, void *value)
{
	return 0;
}

static int rest_begins(void *map, int *key, struct scx_rest *rest)
{
	scx_start_work(&rest->thread, &scx_rest, rest_nothing);
	return 0;
}

/* See above. Only in dispatch, for its own @cpu. */
static __noinline int rest_cpu(s32 cpu)
{
	u32 key = cpu;
	struct scx_rest *rest = bpf_map_lookup_elem(&scx_rest, &key);

	if (!rest)
		return -ENOENT;
	rest->wanted = 1;
	/* The second time the kernel says that it is initialised already. */
	bpf_timer_init(&rest->begin, &scx_rest, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&rest->begin, rest_begins);
	return bpf_timer_start(&rest->begin, 0, BPF_F_TIMER_CPU_PIN);
}

/* For enqueue: the threads of a CPU run there as they come, and at once where one is to make it rest. */
static __noinline int enqueue_cpu_thread(struct task_struct *p, u64 slice, u64 enq_flags)
{
	u32 key = scx_bpf_task_cpu(p);
	struct scx_rest *rest = bpf_map_lookup_elem(&scx_rest, &key);

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
static __always_inline bool may_take(struct task_struct *p, s32 cpu)
{
	if (p->migration_disabled && scx_bpf_task_cpu(p) != cpu)
		return false;
	return bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

#endif /* __SCX_UPGRADE_REST_BPF_H */

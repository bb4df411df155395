/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Forced idle: leave a CPU idle although its task is runnable.
 *
 * When dispatch moves no task, the kernel keeps running the previous one, unless the scheduler was attached with
 * SCX_OPS_ENQ_LAST (balance_one() in kernel/sched/ext.c). The host does not set that flag, because it would hold for every
 * policy. So an empty dispatch does not make a CPU idle. But the kernel does preempt the task for a kthread. A work item
 * queued on this CPU wakes a kworker, which runs for a moment. The kernel passes the preempted task to the policy's enqueue.
 * When the kworker sleeps again, dispatch may leave the CPU idle.
 *
 *	dispatch:	no task may run here, not even @prev:		scxu_force_idle_cpu(cpu); return
 *	enqueue:	if (scxu_is_per_cpu_kthread(p)) { scxu_enqueue_per_cpu_kthread(p, slice, enq_flags); return; }
 *
 * dispatch cannot queue a work item: it holds the run queue's lock, which waking the kworker takes. A timer that expires at
 * once does it. @prev runs for some microseconds more, until the kworker runs.
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

/* The SDK sets max_entries to the number of possible CPUs, and pins the map with the policy's slot. */
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

/* Make @cpu idle soon. Only in dispatch, for its own @cpu. */
static __noinline int scxu_force_idle_cpu(s32 cpu)
{
	u32 key = cpu;
	struct scxu_force_idle *rest = bpf_map_lookup_elem(&scxu_force_idle, &key);

	if (!rest)
		return -ENOENT;
	rest->wanted = 1;
	/* Fails with -EBUSY from the second call on, which does no harm. */
	bpf_timer_init(&rest->begin, &scxu_force_idle, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&rest->begin, scxu_force_idle_begin);
	return bpf_timer_start(&rest->begin, 0, BPF_F_TIMER_CPU_PIN);
}

/* For enqueue: a per-CPU kthread goes to its local DSQ. It preempts where the CPU is to become idle. */
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
 * May the dispatching @cpu take @p from a queue? The kernel ejects a scheduler that moves a task to the local DSQ of a CPU on
 * which the task may not run.
 */
static __always_inline bool scxu_may_take(struct task_struct *p, s32 cpu)
{
	if (p->migration_disabled && scx_bpf_task_cpu(p) != cpu)
		return false;
	return bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

#endif /* __SCX_UPGRADE_FORCE_IDLE_BPF_H */

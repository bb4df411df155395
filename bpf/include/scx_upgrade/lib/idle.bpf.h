/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Idle CPUs. The kernel's built-in idle tracking knows SMT, LLCs and NUMA nodes, and tests whole masks instead of single
 * CPUs. These helpers use it, and cover the cases that the kernel does not call it for.
 */
#ifndef __SCX_UPGRADE_IDLE_BPF_H
#define __SCX_UPGRADE_IDLE_BPF_H

#include <scx_upgrade/policy.bpf.h>

/*
 * For select_cpu: an idle CPU for @p. In this order: the previous CPU, an idle core near it, an idle CPU near it, any idle
 * CPU. Where *@idle is true, the CPU is reserved for @p: insert @p into SCX_DSQ_LOCAL.
 */
static __always_inline s32 scxu_idle_cpu(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *idle)
{
	return scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, idle);
}

/*
 * For enqueue, after @p was inserted into a queue that several CPUs consume: wake an idle CPU that may run @p. Without this,
 * tasks wait while a CPU is idle: the kernel does not call select_cpu for a task whose slice ended or that is bound to one
 * CPU, and a CPU may go idle between select_cpu and enqueue. Returns whether there was an idle CPU.
 */
static __always_inline bool scxu_wake_idle_cpu(struct task_struct *p)
{
	s32 cpu = scx_bpf_task_cpu(p);

	if (!scx_bpf_test_and_clear_cpu_idle(cpu))
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu < 0)
		return false;
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	return true;
}

/*
 * For dispatch: consume the queue of this CPU's LLC first, then the queues of the other LLCs, so that no CPU idles while a
 * task waits. @name is a per-LLC DSQ group. Returns whether a task was moved.
 */
#define scxu_move_to_local_from_llcs(name, cpu)						\
({											\
	u32 __llcs = scxu_nr_llcs(), __own = scxu_llc_of_cpu(cpu), __i;			\
	bool __moved = false;								\
											\
	bpf_for(__i, 0, __llcs) {							\
		u32 __llc = __own + __i;						\
											\
		if (__llc >= __llcs)							\
			__llc -= __llcs;						\
		if (scx_bpf_dsq_move_to_local(scxu_queue_of_llc(name, __llc), 0)) {	\
			__moved = true;							\
			break;								\
		}									\
	}										\
	__moved;									\
})

#endif /* __SCX_UPGRADE_IDLE_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Idle CPUs. The kernel's own choice knows SMT, LLCs and NUMA nodes, keeps the masks, and walks them as masks and not CPU by
 * CPU, so it is asked first. What it is not asked for, and what goes wrong without care, is here.
 */
#ifndef __SCX_UPGRADE_IDLE_BPF_H
#define __SCX_UPGRADE_IDLE_BPF_H

#include <scx_upgrade/policy.bpf.h>

/*
 * For select_cpu: an idle CPU for @p, the previous one if it may stay, else a whole idle core near it, else any idle CPU
 * near it, else any. @idle says whether one was found; it is reserved for @p then, so put @p on its local DSQ.
 */
static __always_inline s32 scxu_idle_cpu(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *idle)
{
	return scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, idle);
}

/*
 * For enqueue, after @p was put on a queue that several CPUs serve: wake an idle one that may run it. select_cpu is not
 * called for a task that is queued again as its slice ends, or that can run on one CPU only, and a CPU that went idle
 * between select_cpu and enqueue sleeps on: without this, work waits beside an idle CPU. True if there was one.
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
 * For dispatch: the queue of this CPU's LLC first, then those of the others, so that no CPU idles while there is work.
 * @name is a per-LLC DSQ group. True if a task was moved.
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

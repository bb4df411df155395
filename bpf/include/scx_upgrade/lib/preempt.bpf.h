/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Preemption: which CPU runs what could best wait. Each CPU's record says how urgent what it runs is:
 *
 *	struct policy_cpu {
 *		SCXU_PREEMPT_CPU_COLUMNS;
 *	} __policy_state;
 *
 *	#include <scx_upgrade/lib/preempt.bpf.h>	behind this struct
 *
 *	running:	scxu_preempt_running(p, rank)
 *	stopping:	scxu_preempt_stopping(p)
 *	enqueue:	scxu_preempt_for(p, rank)
 *
 * A rank is any number by which the larger can better wait: a deadline, a class. What a policy before left in the records
 * says nothing of what runs now, so a rank counts only in the run of the policy that it was noted in.
 */
#ifndef __SCX_UPGRADE_PREEMPT_BPF_H
#define __SCX_UPGRADE_PREEMPT_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* How many CPUs are looked at for one task: a look at each of hundreds, on each wake-up, costs more than it gains. */
#define SCXU_PREEMPT_CPUS	16

static __always_inline void scxu_preempt_running(struct task_struct *p, u64 rank)
{
	struct policy_cpu *c = scxu_cpu_state(scx_bpf_task_cpu(p));

	if (!c)
		return;
	c->running_rank = rank;
	c->running_gen = scxu_run_id();
}

static __always_inline void scxu_preempt_stopping(struct task_struct *p)
{
	struct policy_cpu *c = scxu_cpu_state(scx_bpf_task_cpu(p));

	if (c)
		c->running_gen = 0;
}

/* The rank of what @cpu runs, if it is larger than @rank; else 0. */
static __always_inline u64 scxu_preempt_rank(s32 cpu, u64 rank)
{
	struct policy_cpu *c = scxu_cpu_state(cpu);

	if (!c || c->running_gen != scxu_run_id() || (s64)(c->running_rank - rank) <= 0)
		return 0;
	return c->running_rank;
}

/*
 * Preempt the CPU, of those that @p may run on and that are near the one it was on, that runs what could best wait, if @p
 * is more urgent. @p must be on a queue that this CPU serves first. True if there is one.
 */
static __noinline int scxu_preempt_for(struct task_struct *p, u64 rank)
{
	s32 nr = scx_bpf_nr_cpu_ids(), from, best = -1, i;
	u64 most = rank;

	if (!p)
		return 0;
	from = scx_bpf_task_cpu(p);
	bpf_for(i, 0, SCXU_PREEMPT_CPUS) {
		s32 cpu = from + i;
		u64 other;

		if (i >= nr)
			break;
		if (cpu >= nr)
			cpu -= nr;
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		other = scxu_preempt_rank(cpu, most);
		if (!other)
			continue;
		most = other;
		best = cpu;
	}
	if (best < 0)
		return 0;
	scx_bpf_kick_cpu(best, SCX_KICK_PREEMPT);
	return 1;
}

#endif /* __SCX_UPGRADE_PREEMPT_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Preemption: which CPU runs the least urgent task. Each CPU's record has the rank of its running task:
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
 * A rank is any number: a task with a larger rank can wait longer. A deadline or a class will do. A rank counts only in the
 * run of the policy that stored it, because the ranks of an earlier policy say nothing about the tasks that run now.
 */
#ifndef __SCX_UPGRADE_PREEMPT_BPF_H
#define __SCX_UPGRADE_PREEMPT_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* The most CPUs that one search visits. Visiting hundreds on each wake-up costs more than it gains. */
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

/* The rank of the task on @cpu if it is larger than @rank, else 0. */
static __always_inline u64 scxu_preempt_rank(s32 cpu, u64 rank)
{
	struct policy_cpu *c = scxu_cpu_state(cpu);

	if (!c || c->running_gen != scxu_run_id() || (s64)(c->running_rank - rank) <= 0)
		return 0;
	return c->running_rank;
}

/*
 * Preempt the CPU with the largest rank, if that is larger than @rank. Searches CPUs that @p may run on, from the CPU of @p
 * upward. @p must be on a queue that the preempted CPU consumes first. Returns whether a CPU was preempted.
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger: state with an invariant that holds whatever ran and however often. Each turn on the CPU adds one to
 * `turns` and derives the rest from it, so a reader that knows nothing of schedulers can tell for every task, running
 * or not, whether a swap lost, mixed or repeated a write: LEDGER_SEAL(pid, turns) must stand in `seal`, and `turns`
 * never goes back. Each turn also counts once for its CPU, once for its cgroup and once in all. The two versions lay the
 * columns out apart.
 */
#ifndef __LEDGER_BPF_H
#define __LEDGER_BPF_H

#define LEDGER_SEAL(pid, turns)	(((u64)(pid) << 40 | (turns)) * 0x9e3779b97f4a7c15ULL)

SCXU_QUEUE_FIFO(ledger_queue);

#ifndef LEDGER_OWN_ENQUEUE
void BPF_STRUCT_OPS(ledger_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, ledger_queue, SCX_SLICE_DFL, enq_flags);
}
#endif

#ifndef LEDGER_OWN_DISPATCH
void BPF_STRUCT_OPS(ledger_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(ledger_queue, 0);
}
#endif

/* In this order, so that whoever reads the sum of the parts after the whole never finds less. */
static void ledger_count(struct task_struct *p)
{
	struct policy_cpu *cpu = scxu_cpu_state(bpf_get_smp_processor_id());
	struct cgroup *cgrp = scx_bpf_task_cgroup(p);

	if (cpu)
		cpu->cpu_turns++;
	if (cgrp) {
		struct policy_cgroup *group = scxu_cgroup_state(cgrp);

		if (group)
			__sync_fetch_and_add(&group->cgroup_turns, 1);
		bpf_cgroup_release(cgrp);
	}
	__sync_fetch_and_add(&scxu_global_state()->all_turns, 1);
}

void BPF_STRUCT_OPS(ledger_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	ledger_count(p);
	if (!t)
		return;
	t->turns++;
	t->turns_low = t->turns;
	t->seal = LEDGER_SEAL(p->pid, t->turns);
	ledger_turn(t);
}

#define LEDGER_OPS					\
	.enqueue	= (void *)ledger_enqueue,	\
	.dispatch	= (void *)ledger_dispatch,	\
	.running	= (void *)ledger_running

#endif /* __LEDGER_BPF_H */

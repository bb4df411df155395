/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_mini: the task with the smallest virtual time runs next, and each runs for its slice. One queue for each LLC; a CPU
 * whose own is empty helps the others. The one to read first.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

SCXU_QUEUE_VTIME_PER_LLC(waiting);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;

/* Statistics: put on an idle CPU at once, or queued. */
u64 nr_direct, nr_queued;

s32 BPF_STRUCT_OPS(mini_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(mini_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 queue = scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p)));
	u64 now = scxu_global_state()->vtime_now;
	u64 vtime = t ? scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, slice_ns)) : now;

	scx_bpf_dsq_insert_vtime(p, queue, slice_ns, vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	scxu_wake_idle_cpu(p);
}

/* A task that has waited for some seconds goes first. */
static __noinline int mini_age(void)
{
	scxu_vtime_age_llcs(waiting, waiting, scxu_global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(mini_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scxu_aging_due())
		mini_age();
	if (!scxu_move_to_local_from_llcs(waiting, cpu))
		scxu_extend_prev_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(mini_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (!t)
		return;
	scxu_run_begin(t);
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
}

void BPF_STRUCT_OPS(mini_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_vtime_end(t, &scxu_global_state()->vtime_now,
			  scxu_vtime_of(scxu_run_ns(t, slice_ns), p->scx.weight));
}

SCXU_POLICY_DEFINE("scx_mini",
	      .select_cpu	= (void *)mini_select_cpu,
	      .enqueue		= (void *)mini_enqueue,
	      .dispatch		= (void *)mini_dispatch,
	      .running		= (void *)mini_running,
	      .stopping		= (void *)mini_stopping);

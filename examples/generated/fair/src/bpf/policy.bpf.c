/* SPDX-License-Identifier: GPL-2.0-only */
/* The task with the smallest virtual time runs next, and each runs for its slice. */
#include <scx_upgrade/aging.bpf.h>

/* State: what the next version names with the same name and type, it finds as this one left it. */
struct policy_task {
	VTIME_TASK_COLUMNS;
	RUN_TASK_COLUMNS;
} __policy_state;
struct policy_global { VTIME_CLOCK_COLUMNS; } __policy_state;

POLICY_QUEUE_VTIME(waiting);

const volatile u64 slice_ns = 5 * NSEC_PER_MSEC_ULL;	/* an option */
u64 nr_queued;						/* statistics */

s32 BPF_STRUCT_OPS(policy_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
	return cpu;
}

void BPF_STRUCT_OPS(policy_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = task_state(p);
	u64 now = global_state()->vtime_now, vtime;

	vtime = t ? vtime_place(t, &now, vtime_credit(enq_flags, slice_ns)) : now;
	scx_bpf_dsq_insert_vtime(p, waiting, slice_ns, vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	wake_idle_cpu(p);
}

/* Run the first waiting task. A task that has waited for some seconds is first, whatever its weight. */
void BPF_STRUCT_OPS(policy_dispatch, s32 cpu, struct task_struct *prev)
{
	vtime_dispatch(waiting, global_state()->vtime_now, prev, slice_ns);
}

void BPF_STRUCT_OPS(policy_running, struct task_struct *p)
{
	struct policy_task *t = task_state(p);

	if (t) {
		run_begin(t);
		vtime_begin(t, &global_state()->vtime_now);
	}
}

void BPF_STRUCT_OPS(policy_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = task_state(p);

	if (t)
		vtime_end(t, &global_state()->vtime_now, vtime_of(run_ns(t, slice_ns), p->scx.weight));
}

POLICY_DEFINE("generated_fair",
	      .select_cpu = (void *)policy_select_cpu, .enqueue = (void *)policy_enqueue,
	      .dispatch = (void *)policy_dispatch,
	      .running = (void *)policy_running, .stopping = (void *)policy_stopping);

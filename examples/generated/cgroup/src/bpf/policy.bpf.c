/* SPDX-License-Identifier: GPL-2.0-only */
/* The task with the smallest virtual time runs next, and each runs for its slice. */
#include <scx_upgrade/lib/aging.bpf.h>

/* State: what the next version names with the same name and type, it finds as this one left it. */
struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	SCXU_SHARES_TASK_COLUMNS;
} __policy_state;
struct policy_cgroup { SCXU_SHARES_CGROUP_COLUMNS; } __policy_state;

struct policy_global { SCXU_VTIME_CLOCK_COLUMNS; } __policy_state;

#include <scx_upgrade/lib/shares.bpf.h>

SCXU_QUEUE_VTIME(waiting);

const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;	/* an option */
u64 nr_queued;						/* statistics */

s32 BPF_STRUCT_OPS(policy_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
	return cpu;
}

void BPF_STRUCT_OPS(policy_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scxu_global_state()->vtime_now, vtime;

	if (t)
		scxu_shares_join(p, t);
	vtime = t ? scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, slice_ns)) : now;
	scx_bpf_dsq_insert_vtime(p, waiting, slice_ns, vtime, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	scxu_wake_idle_cpu(p);
}

/* Run the first waiting task. A task that has waited for some seconds is first, whatever its weight. */
void BPF_STRUCT_OPS(policy_dispatch, s32 cpu, struct task_struct *prev)
{
	scxu_vtime_dispatch(waiting, scxu_global_state()->vtime_now, prev, slice_ns);
}

void BPF_STRUCT_OPS(policy_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_shares_leave(p, t);
}

void BPF_STRUCT_OPS(policy_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t) {
		scxu_run_begin(t);
		scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	}
}

void BPF_STRUCT_OPS(policy_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(scxu_run_ns(t, slice_ns) * SCXU_SHARES_ONE, scxu_share_of(p, t)));
}

SCXU_POLICY_DEFINE("generated_cgroup",
	      .select_cpu = (void *)policy_select_cpu, .enqueue = (void *)policy_enqueue,
	      .dispatch = (void *)policy_dispatch, .quiescent = (void *)policy_quiescent,
	      .running = (void *)policy_running, .stopping = (void *)policy_stopping);

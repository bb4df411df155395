/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dozy: the task with the smallest virtual time runs next. All of it but dozy_place(), which the version defines that
 * includes this.
 */
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	u64	waits_since_ns __momentary __timestamp;	/* 0 if it does not wait for a CPU */
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

SCXU_QUEUE_VTIME(waiting);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;

/* The longest that a task has waited for its turn under this version, ns. Two CPUs may race: it is for people. */
u64 longest_wait_ns;

/* Where on the queue @t is to wait, when the clock shows @now. */
static __always_inline u64 dozy_place(struct policy_task *t, u64 now, u64 enq_flags);

s32 BPF_STRUCT_OPS(dozy_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
	return cpu;
}

void BPF_STRUCT_OPS(dozy_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scxu_global_state()->vtime_now;

	if (t)
		t->waits_since_ns = scx_bpf_now();
	scx_bpf_dsq_insert_vtime(p, waiting, slice_ns, t ? dozy_place(t, now, enq_flags) : now, enq_flags);
	scxu_wake_idle_cpu(p);
}

void BPF_STRUCT_OPS(dozy_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(waiting, 0);
}

void BPF_STRUCT_OPS(dozy_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	u64 waited;

	if (!t)
		return;
	scxu_run_begin(t);
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	waited = scxu_ns_since(t->waits_since_ns, t->last_run_at_ns);
	t->waits_since_ns = 0;
	if (waited > longest_wait_ns)
		longest_wait_ns = waited;
}

void BPF_STRUCT_OPS(dozy_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(scxu_run_ns(t, slice_ns), p->scx.weight));
}

SCXU_POLICY_DEFINE("dozy",
	      .select_cpu	= (void *)dozy_select_cpu,
	      .enqueue		= (void *)dozy_enqueue,
	      .dispatch		= (void *)dozy_dispatch,
	      .running		= (void *)dozy_running,
	      .stopping		= (void *)dozy_stopping);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_lat: who runs briefly and often runs first, and at once.
 *
 * Tasks wait by deadline: virtual time, plus what a task uses the CPU for between two waits, on average. So of two that
 * have had the same share the one that will be done sooner goes first. A task that wakes up often may have saved more of
 * what it did not use than one that wakes up seldom. One that wakes up with an earlier deadline than a CPU's running task,
 * by a margin, takes the CPU from it. Shares are kept: the deadline only says who goes first, virtual time who is ahead.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/average.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	u64	last_woke_at_ns;
	u64	wakeup_freq_hz;
	u64	avg_runtime_ns __default(5000000);	/* a new task may be any; as long as a slice */
	u64	runtime_since_wakeup_ns;
	u64	deadline;
} __policy_state;

struct policy_cpu {
	SCXU_PREEMPT_CPU_COLUMNS;
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

#include <scx_upgrade/lib/preempt.bpf.h>

SCXU_QUEUE_VTIME_PER_LLC(waiting);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;
/* How much earlier a deadline must be for its task to take a CPU from another, ns. */
const volatile u64 margin_ns = 500 * SCXU_NSEC_PER_USEC;
/* A task that wakes up so often may have saved a slice more, per second; and as many slices at most. */
const volatile u64 freq_hz = 100;
const volatile u64 slices_max = 4;

/* Statistics: put on an idle CPU at once, queued, and took a CPU from another. */
u64 nr_direct, nr_queued, nr_preempted;

static u64 lat_credit(struct policy_task *t)
{
	u64 slices = 1 + t->wakeup_freq_hz / freq_hz;

	return slice_ns * (slices < slices_max ? slices : slices_max);
}

s32 BPF_STRUCT_OPS(lat_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(lat_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p)));
	struct policy_task *t = scxu_task_state(p);
	u64 now = scxu_global_state()->vtime_now, burst;

	__sync_fetch_and_add(&nr_queued, 1);
	if (!t) {
		scx_bpf_dsq_insert_vtime(p, queue, slice_ns, now, enq_flags);
		scxu_wake_idle_cpu(p);
		return;
	}
	burst = t->avg_runtime_ns < slice_ns ? t->avg_runtime_ns : slice_ns;
	t->deadline = scxu_vtime_place(t, &now, scxu_vtime_credit(enq_flags, lat_credit(t))) + scxu_vtime_of(burst, p->scx.weight);
	scx_bpf_dsq_insert_vtime(p, queue, slice_ns, t->deadline, enq_flags);
	if (!scxu_wake_idle_cpu(p) && (enq_flags & SCX_ENQ_WAKEUP) && scxu_preempt_for(p, t->deadline + margin_ns))
		__sync_fetch_and_add(&nr_preempted, 1);
}

static __noinline int lat_age(void)
{
	scxu_vtime_age_llcs(waiting, waiting, scxu_global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(lat_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scxu_aging_due())
		lat_age();
	if (!scxu_move_to_local_from_llcs(waiting, cpu))
		scxu_extend_prev_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(lat_runnable, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scx_bpf_now();

	if (!t || !(enq_flags & SCX_ENQ_WAKEUP))
		return;
	if (t->last_woke_at_ns)
		t->wakeup_freq_hz = scxu_average_freq(t->wakeup_freq_hz, scxu_ns_since(t->last_woke_at_ns, now));
	t->last_woke_at_ns = now;
	t->runtime_since_wakeup_ns = 0;
}

void BPF_STRUCT_OPS(lat_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (!t)
		return;
	scxu_run_begin(t);
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	/* The longer it has run since it woke up, the better it can wait. */
	scxu_preempt_running(p, t->vtime + scxu_vtime_of(t->runtime_since_wakeup_ns + t->avg_runtime_ns, p->scx.weight));
}

void BPF_STRUCT_OPS(lat_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);
	u64 used;

	scxu_preempt_stopping(p);
	if (!t)
		return;
	used = scxu_run_ns(t, slice_ns);
	t->runtime_since_wakeup_ns += used;
	if (!runnable)
		t->avg_runtime_ns = scxu_average(t->avg_runtime_ns, t->runtime_since_wakeup_ns);
	else if (t->runtime_since_wakeup_ns > t->avg_runtime_ns)
		t->avg_runtime_ns = t->runtime_since_wakeup_ns;
	scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(used, p->scx.weight));
}

SCXU_POLICY_DEFINE("scx_lat",
	      .select_cpu	= (void *)lat_select_cpu,
	      .enqueue		= (void *)lat_enqueue,
	      .dispatch		= (void *)lat_dispatch,
	      .runnable		= (void *)lat_runnable,
	      .running		= (void *)lat_running,
	      .stopping		= (void *)lat_stopping);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_lat: who runs briefly and often runs first, and at once.
 *
 * Tasks wait by deadline: virtual time, plus what a task uses the CPU for between two waits, on average. So of two that
 * have had the same share the one that will be done sooner goes first. A task that wakes up often may have saved more of
 * what it did not use than one that wakes up seldom. One that wakes up with an earlier deadline than a CPU's running task,
 * by a margin, takes the CPU from it. Shares are kept: the deadline only says who goes first, virtual time who is ahead.
 */
#include <scx_upgrade/aging.bpf.h>
#include <scx_upgrade/average.bpf.h>
#include <scx_upgrade/idle.bpf.h>
#include <scx_upgrade/vtime.bpf.h>

struct policy_task {
	VTIME_TASK_COLUMNS;
	RUN_TASK_COLUMNS;
	u64	last_woke_at_ns;
	u64	wakeup_freq_hz;
	u64	avg_runtime_ns __default(5000000);	/* a new task may be any; as long as a slice */
	u64	runtime_since_wakeup_ns;
	u64	deadline;
} __policy_state;

struct policy_cpu {
	PREEMPT_CPU_COLUMNS;
} __policy_state;

struct policy_global {
	VTIME_CLOCK_COLUMNS;
} __policy_state;

#include <scx_upgrade/preempt.bpf.h>

POLICY_QUEUE_VTIME_PER_LLC(waiting);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * NSEC_PER_MSEC_ULL;
/* How much earlier a deadline must be for its task to take a CPU from another, ns. */
const volatile u64 margin_ns = 500 * NSEC_PER_USEC_ULL;
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
	s32 cpu = idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(lat_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = queue_of_llc(waiting, llc_of_cpu(scx_bpf_task_cpu(p)));
	struct policy_task *t = task_state(p);
	u64 now = global_state()->vtime_now, burst;

	__sync_fetch_and_add(&nr_queued, 1);
	if (!t) {
		scx_bpf_dsq_insert_vtime(p, queue, slice_ns, now, enq_flags);
		wake_idle_cpu(p);
		return;
	}
	burst = t->avg_runtime_ns < slice_ns ? t->avg_runtime_ns : slice_ns;
	t->deadline = vtime_place(t, &now, vtime_credit(enq_flags, lat_credit(t))) + vtime_of(burst, p->scx.weight);
	scx_bpf_dsq_insert_vtime(p, queue, slice_ns, t->deadline, enq_flags);
	if (!wake_idle_cpu(p) && (enq_flags & SCX_ENQ_WAKEUP) && preempt_for(p, t->deadline + margin_ns))
		__sync_fetch_and_add(&nr_preempted, 1);
}

static __noinline int lat_age(void)
{
	vtime_age_llcs(waiting, waiting, global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(lat_dispatch, s32 cpu, struct task_struct *prev)
{
	if (aging_due())
		lat_age();
	if (!move_from_llcs(waiting, cpu))
		go_on(prev, slice_ns);
}

void BPF_STRUCT_OPS(lat_runnable, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = task_state(p);
	u64 now = scx_bpf_now();

	if (!t || !(enq_flags & SCX_ENQ_WAKEUP))
		return;
	if (t->last_woke_at_ns)
		t->wakeup_freq_hz = average_freq(t->wakeup_freq_hz, ns_since(t->last_woke_at_ns, now));
	t->last_woke_at_ns = now;
	t->runtime_since_wakeup_ns = 0;
}

void BPF_STRUCT_OPS(lat_running, struct task_struct *p)
{
	struct policy_task *t = task_state(p);

	if (!t)
		return;
	run_begin(t);
	vtime_begin(t, &global_state()->vtime_now);
	/* The longer it has run since it woke up, the better it can wait. */
	preempt_running(p, t->vtime + vtime_of(t->runtime_since_wakeup_ns + t->avg_runtime_ns, p->scx.weight));
}

void BPF_STRUCT_OPS(lat_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = task_state(p);
	u64 used;

	preempt_stopping(p);
	if (!t)
		return;
	used = run_ns(t, slice_ns);
	t->runtime_since_wakeup_ns += used;
	if (!runnable)
		t->avg_runtime_ns = average(t->avg_runtime_ns, t->runtime_since_wakeup_ns);
	else if (t->runtime_since_wakeup_ns > t->avg_runtime_ns)
		t->avg_runtime_ns = t->runtime_since_wakeup_ns;
	vtime_end(t, &global_state()->vtime_now, vtime_of(used, p->scx.weight));
}

POLICY_DEFINE("scx_lat",
	      .select_cpu	= (void *)lat_select_cpu,
	      .enqueue		= (void *)lat_enqueue,
	      .dispatch		= (void *)lat_dispatch,
	      .runnable		= (void *)lat_runnable,
	      .running		= (void *)lat_running,
	      .stopping		= (void *)lat_stopping);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_mix: mixed deployment. Tasks of the cgroups that user space names, and of those in them, are latency-critical; all
 * others are best-effort. The critical go first, among themselves by virtual time, and take a CPU from a best-effort task
 * when they wake up. Best-effort tasks get what is left, and a floor: of each CPU's time at least floor_pct, whatever the
 * critical want. So a best-effort task that holds up a critical one (a lock in the kernel) is never stopped for good.
 *
 * Kernel threads of one CPU count as critical: the machine waits for them.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/cgroup.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/kthread.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

/* A task's virtual time among the critical. */
struct mix_critical {
	SCXU_VTIME_TASK_COLUMNS;
};

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;		/* among the best-effort */
	SCXU_RUN_TASK_COLUMNS;
	struct mix_critical	critical;
} __policy_state;

struct policy_cpu {
	SCXU_PREEMPT_CPU_COLUMNS;
	u64	floor_debt_ns;		/* what best-effort tasks are owed here */
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;		/* of the best-effort */
	u64	critical_now __default(1099511627776);
} __policy_state;

#include <scx_upgrade/lib/preempt.bpf.h>

#define MIX_GROUPS	16

/* By virtual time, each class by a clock of its own: what the one used is not held against the other. */
SCXU_QUEUE_VTIME_PER_LLC(critical);
SCXU_QUEUE_VTIME_PER_LLC(best_effort);

/* The cgroups whose tasks are critical, by id; 0 ends the list. */
const volatile u64 critical_ids[MIX_GROUPS];
/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;
/* What best-effort tasks get of each CPU at least while they want it, per cent. */
const volatile u64 floor_pct = 5;

/* Statistics. */
u64 nr_critical, nr_best_effort, nr_preempted, nr_floor;

enum mix_class {
	MIX_CRITICAL = 1,
	MIX_BEST_EFFORT = 2,
};

static bool mix_named(struct cgroup *cgrp)
{
	u64 id = cgrp->kn->id;
	u32 i;

	bpf_for(i, 0, MIX_GROUPS) {
		u64 named = critical_ids[i & (MIX_GROUPS - 1)];

		if (!named)
			break;
		if (named == id)
			return true;
	}
	return false;
}

static __noinline int mix_class(struct task_struct *p)
{
	struct cgroup *cgrp, *at;
	int class = MIX_BEST_EFFORT;
	s32 level, i;

	if (!p)
		return class;
	if (scxu_is_per_cpu_kthread(p))
		return MIX_CRITICAL;
	if (!critical_ids[0])
		return class;
	cgrp = scx_bpf_task_cgroup(p);
	level = cgrp->level;
	bpf_for(i, 0, SCXU_CGROUP_LEVELS) {
		if (level < 1)
			break;
		at = bpf_cgroup_ancestor(cgrp, level);
		if (!at)
			break;
		if (mix_named(at))
			class = MIX_CRITICAL;
		bpf_cgroup_release(at);
		if (class == MIX_CRITICAL)
			break;
		level--;
	}
	bpf_cgroup_release(cgrp);
	return class;
}

s32 BPF_STRUCT_OPS(mix_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
	return cpu;
}

void BPF_STRUCT_OPS(mix_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 llc = scxu_llc_of_cpu(scx_bpf_task_cpu(p));
	struct policy_task *t = scxu_task_state(p);
	u64 credit = scxu_vtime_credit(enq_flags, slice_ns), now, vtime;
	int class = mix_class(p);

	if (class == MIX_CRITICAL) {
		__sync_fetch_and_add(&nr_critical, 1);
		now = scxu_global_state()->critical_now;
		vtime = t ? scxu_vtime_place(&t->critical, &now, credit) : now;
		scx_bpf_dsq_insert_vtime(p, scxu_queue_of_llc(critical, llc), slice_ns, vtime, enq_flags);
	} else {
		__sync_fetch_and_add(&nr_best_effort, 1);
		now = scxu_global_state()->vtime_now;
		vtime = t ? scxu_vtime_place(t, &now, credit) : now;
		scx_bpf_dsq_insert_vtime(p, scxu_queue_of_llc(best_effort, llc), slice_ns, vtime, enq_flags);
	}
	if (!scxu_wake_idle_cpu(p) && class == MIX_CRITICAL && scxu_preempt_for(p, class))
		__sync_fetch_and_add(&nr_preempted, 1);
}

/*
 * A best-effort task that has waited for seconds has one turn among the critical: their floor is a share of the CPU, and too
 * small a one where hundreds want it.
 */
static __noinline int mix_age(void)
{
	u64 clock = scxu_global_state()->critical_now;

	scxu_vtime_age_llcs(critical, critical, clock, critical.vtime);
	scxu_vtime_age_llcs(best_effort, critical, clock, critical.vtime);
	return 0;
}

void BPF_STRUCT_OPS(mix_dispatch, s32 cpu, struct task_struct *prev)
{
	struct policy_cpu *c = scxu_cpu_state(cpu);

	if (scxu_aging_due())
		mix_age();
	/* A turn of theirs is owed once it is worth one. */
	if (c && c->floor_debt_ns >= slice_ns && scxu_move_to_local_from_llcs(best_effort, cpu)) {
		__sync_fetch_and_add(&nr_floor, 1);
		return;
	}
	if (!scxu_move_to_local_from_llcs(critical, cpu) && !scxu_move_to_local_from_llcs(best_effort, cpu))
		scxu_extend_prev_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(mix_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	struct policy_cpu *c = scxu_cpu_state(scx_bpf_task_cpu(p));
	int class = mix_class(p);

	if (!t)
		return;
	scxu_run_begin(t);
	if (class == MIX_CRITICAL)
		scxu_vtime_begin(&t->critical, &scxu_global_state()->critical_now);
	else
		scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	/* A turn that is owed is not taken away again. */
	scxu_preempt_running(p, c && c->floor_debt_ns >= slice_ns ? MIX_CRITICAL : class);
}

void BPF_STRUCT_OPS(mix_stopping, struct task_struct *p, bool runnable)
{
	struct policy_cpu *c = scxu_cpu_state(scx_bpf_task_cpu(p));
	struct policy_task *t = scxu_task_state(p);
	int class = mix_class(p);
	u64 used, owed;

	scxu_preempt_stopping(p);
	if (!t)
		return;
	used = scxu_run_ns(t, slice_ns);
	if (class == MIX_CRITICAL)
		scxu_vtime_end(&t->critical, &scxu_global_state()->critical_now, scxu_vtime_of(used, p->scx.weight));
	else
		scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(used, p->scx.weight));
	if (!c)
		return;
	if (class == MIX_CRITICAL) {
		owed = c->floor_debt_ns + used * floor_pct / (100 - floor_pct);
		/* Nobody waited: nothing is owed for it later. */
		c->floor_debt_ns = owed < 2 * slice_ns ? owed : 2 * slice_ns;
	} else {
		c->floor_debt_ns = used < c->floor_debt_ns ? c->floor_debt_ns - used : 0;
	}
}

SCXU_POLICY_DEFINE("scx_mix",
	      .select_cpu	= (void *)mix_select_cpu,
	      .enqueue		= (void *)mix_enqueue,
	      .dispatch		= (void *)mix_dispatch,
	      .running		= (void *)mix_running,
	      .stopping		= (void *)mix_stopping);

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * steady, a plain sched_ext scheduler: one queue by virtual time. A task that took short turns lately may be placed
 * further behind the clock, and so runs sooner.
 */
/* ANCHOR: head */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);
/* ANCHOR_END: head */

/* ANCHOR: settings */
/* Longest turn on the CPU, ns. */
const volatile u64 slice_ns = 5000000;
/* ANCHOR_END: settings */

/* ANCHOR: clock */
/* The largest virtual time at which a task has begun to run. */
static u64 vtime_now;
/* ANCHOR_END: clock */

/* ANCHOR: queue */
#define STEADY_DSQ	0

s32 BPF_STRUCT_OPS_SLEEPABLE(steady_init)
{
	return scx_bpf_create_dsq(STEADY_DSQ, -1);
}
/* ANCHOR_END: queue */

/* ANCHOR: task */
struct task_ctx {
	u64	began_at;	/* ns */
	u64	avg_turn;	/* ns on the CPU per turn, decaying */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

static struct task_ctx *task_ctx(struct task_struct *p)
{
	return bpf_task_storage_get(&task_ctxs, p, 0, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(steady_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	if (!bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	return 0;
}
/* ANCHOR_END: task */

/* ANCHOR: stats */
/* How often each CPU was given a task directly, and how often one came from the queue. */
struct cpu_stats {
	u64	nr_direct;
	u64	nr_queued;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_stats);
} stats SEC(".maps");

static struct cpu_stats *this_cpu_stats(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}
/* ANCHOR_END: stats */

s32 BPF_STRUCT_OPS(steady_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct cpu_stats *s = this_cpu_stats();
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		if (s)
			s->nr_direct++;
	}
	return cpu;
}

/* ANCHOR: enqueue */
void BPF_STRUCT_OPS(steady_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *t = task_ctx(p);
	struct cpu_stats *s = this_cpu_stats();
	u64 vtime = p->scx.dsq_vtime, floor = vtime_now - slice_ns;

	/* Who takes half turns may be a slice further behind. */
	if (t && t->avg_turn < slice_ns / 2)
		floor -= slice_ns;
	if (time_before(vtime, floor))
		vtime = floor;
	scx_bpf_dsq_insert_vtime(p, STEADY_DSQ, slice_ns, vtime, enq_flags);
	if (s)
		s->nr_queued++;
}
/* ANCHOR_END: enqueue */

void BPF_STRUCT_OPS(steady_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(STEADY_DSQ, 0);
}

/* ANCHOR: running */
void BPF_STRUCT_OPS(steady_running, struct task_struct *p)
{
	struct task_ctx *t = task_ctx(p);

	if (t)
		t->began_at = scx_bpf_now();
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(steady_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *t = task_ctx(p);
	s64 used;

	if (!t)
		return;
	used = scx_bpf_now() - t->began_at;
	if (used < 0)
		used = 0;
	p->scx.dsq_vtime += used * 100 / (p->scx.weight ?: 1);
	t->avg_turn += ((u64)used >> 2) - (t->avg_turn >> 2);
}
/* ANCHOR_END: running */

/* ANCHOR: enable */
void BPF_STRUCT_OPS(steady_enable, struct task_struct *p)
{
	p->scx.dsq_vtime = vtime_now;
}
/* ANCHOR_END: enable */

/* ANCHOR: ops */
void BPF_STRUCT_OPS(steady_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(steady_ops,
	       .select_cpu	= (void *)steady_select_cpu,
	       .enqueue		= (void *)steady_enqueue,
	       .dispatch	= (void *)steady_dispatch,
	       .running		= (void *)steady_running,
	       .stopping	= (void *)steady_stopping,
	       .enable		= (void *)steady_enable,
	       .init_task	= (void *)steady_init_task,
	       .init		= (void *)steady_init,
	       .exit		= (void *)steady_exit,
	       .name		= "steady");
/* ANCHOR_END: ops */

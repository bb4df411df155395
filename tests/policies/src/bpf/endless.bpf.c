/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Gives slices without end, and ends each turn itself. So its tasks run on for ever under a policy that does not, if they keep
 * those slices. They wait on local DSQs as well as on a queue that scx_mini has too.
 */
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

#define TURN_NS	(5 * 1000 * 1000ULL)
/* Tasks that one dispatch moves to the local DSQ. */
#define BATCH	3

struct policy_task {
	u64	turn_began __unit(ns);
} __policy_state;

/* scx_mini's clock, because the queue is scx_mini's too: each task that is queued comes after those that wait there. */
struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

SCXU_QUEUE_VTIME_PER_LLC(waiting);

void BPF_STRUCT_OPS(endless_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p)));
	u64 vtime = __sync_fetch_and_add(&scxu_global_state()->vtime_now, TURN_NS);

	scx_bpf_dsq_insert_vtime(p, queue, SCX_SLICE_INF, vtime, enq_flags);
	scxu_wake_idle_cpu(p);
}

void BPF_STRUCT_OPS(endless_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 i;

	bpf_for(i, 0, BATCH) {
		if (!scxu_move_to_local_from_llcs(waiting, cpu))
			break;
	}
}

void BPF_STRUCT_OPS(endless_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t)
		t->turn_began = scx_bpf_now();
}

void BPF_STRUCT_OPS(endless_tick, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (t && scx_bpf_now() - t->turn_began > TURN_NS)
		scx_bpf_task_set_slice(p, 0);
}

SCXU_POLICY_DEFINE("endless",
	      .enqueue	= (void *)endless_enqueue,
	      .dispatch	= (void *)endless_dispatch,
	      .running	= (void *)endless_running,
	      .tick	= (void *)endless_tick);

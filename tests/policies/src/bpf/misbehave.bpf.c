/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger of ledger_a, and after a while it does something that a scheduler must not. Everything verifies: what is wrong
 * shows only when it runs.
 */
#include <scx_upgrade/policy.bpf.h>

struct policy_task {
	u64	turns;
	u64	seal;
	u16	turns_low;
	u32	only_a __default(7);
} __policy_state;

struct policy_cpu {
	u64	cpu_turns;
} __policy_state;

struct policy_cgroup {
	u64	cgroup_turns;
} __policy_state;

struct policy_global {
	u64	all_turns;
} __policy_state;

static void ledger_turn(struct policy_task *t)
{
	t->only_a++;
}

#define LEDGER_OWN_ENQUEUE
#define LEDGER_OWN_DISPATCH
#include "ledger.bpf.h"

SCXU_QUEUE_FIFO(never_served);

enum how {
	HOW_WELL,
	HOW_ERROR,	/* says itself that something is wrong */
	HOW_NO_CPU,	/* dispatches to a CPU that there is not */
	HOW_WRONG_KIND,	/* inserts by virtual time into a FIFO queue */
	HOW_DROP,	/* keeps some tasks from every queue */
	HOW_FORGET,	/* puts some tasks on a queue that it never serves */
	HOW_STARVE,	/* serves one cgroup's tasks only when there is nothing else to do */
	HOW_REFUSE,	/* lets nobody be born in one cgroup */
};

const volatile u32 how;
const volatile u64 after_ns;
/* The cgroup that is starved, or has no children. */
const volatile u64 cgroup_id;

#define NO_SUCH_CPU	4095
#define ONE_OF		8

static u64 begun;

static bool it_is_time(void)
{
	u64 now = bpf_ktime_get_ns();

	if (!begun)
		__sync_val_compare_and_swap(&begun, 0, now);
	return now - begun > after_ns;
}

/* Some tasks, the same ones each time, and none of the kernel's: those hold up everything. */
static bool is_picked(struct task_struct *p)
{
	return !(p->flags & PF_KTHREAD) && p->pid % ONE_OF == 3;
}

void BPF_STRUCT_OPS(ledger_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = ledger_queue;

	if (it_is_time()) {
		switch (how) {
		case HOW_ERROR:
			scx_bpf_error("misbehave has had enough");
			break;
		case HOW_NO_CPU:
			queue = SCX_DSQ_LOCAL_ON | NO_SUCH_CPU;
			break;
		case HOW_WRONG_KIND:
			/* The kernel finds the two orders mixed only where some are on the queue. */
			if (scx_bpf_dsq_nr_queued(queue) > 0) {
				scx_bpf_dsq_insert_vtime(p, queue, SCX_SLICE_DFL, 0, enq_flags);
				return;
			}
			break;
		case HOW_DROP:
			if (is_picked(p))
				return;
			break;
		case HOW_FORGET:
			if (is_picked(p))
				queue = never_served;
			break;
		case HOW_STARVE:
			if (p->cgroups->dfl_cgrp->kn->id == cgroup_id)
				queue = never_served;
			break;
		}
	}
	scx_bpf_dsq_insert(p, queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(ledger_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(ledger_queue, 0) && how == HOW_STARVE)
		scx_bpf_dsq_move_to_local(never_served, 0);
}

s32 BPF_STRUCT_OPS(refuse_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	/* It is in no cgroup yet, and will be in that of who forks. */
	if (how == HOW_REFUSE && args->fork && bpf_get_current_task_btf()->cgroups->dfl_cgrp->kn->id == cgroup_id)
		return -EAGAIN;
	return 0;
}

SCXU_POLICY_DEFINE("misbehave", LEDGER_OPS, .init_task = (void *)refuse_init_task);

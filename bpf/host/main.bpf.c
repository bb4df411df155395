/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host: the one scheduler that the kernel sees. It is attached once and stays. Each op reads the slot from the
 * control word and tail-calls the policy's program there; where the policy has none the tail call falls through and
 * the host does what the kernel does for a scheduler that lacks the op (Linux v7.3 kernel/sched/ext/ext.c, the places
 * named at each op; the same since v6.16).
 *
 * Left out on purpose: core_sched_before (its argument order differs between kernels, and defining it costs each
 * dispatch), cpu_acquire and cpu_release (deprecated, and defining them adds calls), sub_* (would change which
 * scheduler an unassociated program talks to).
 */
#include <scx_upgrade/records.bpf.h>
#include <scx_upgrade/sweep.bpf.h>
#include "queues.bpf.h"
#include "task_table.bpf.h"
#include "handover.bpf.h"

char _license[] SEC("license") = "GPL";

/* User space's books on the host: see sdk/src/registry.rs. One update is one transaction. */
struct registry { u8 bytes[128 * 1024]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct registry);
} scxu_registry SEC(".maps");

/*
 * An update of a map of maps from user space returns after an RCU grace period (kernel/bpf/syscall.c,
 * maybe_wait_bpf_programs()): this is how a swap waits until no op of the old policy is in flight.
 */
struct settle_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} scxu_settle_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct settle_inner);
} scxu_settle SEC(".maps") = { .values = { &scxu_settle_inner } };

/*
 * What the kernel's debug dump said when it took the host off: as long as a dump is that nobody asked to be longer
 * (SCX_EXIT_DUMP_DFL_LEN, kernel/sched/ext/internal.h).
 */
struct dump { char text[32768]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct dump);
} scxu_dump SEC(".maps");

/* One array per op: the kernel wants equal prototypes in an array. `op_` is how user space finds them. */
#define OP_ARRAY(op)						\
	struct {						\
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);		\
		__uint(max_entries, SCX_UPGRADE_NR_SLOTS);	\
		__type(key, u32);				\
		__type(value, u32);				\
	} op_##op SEC(".maps")

/*
 * The tail call into the running policy; what follows is reached if it has no such op. Constant indices keep each call a
 * patched direct jump; a variable one would be an indirect jump. In assembly, because this is what the host adds to each
 * op of each context switch: r1 holds the context all along, where the compiler would save it, and two registers more,
 * around each of four calls. Where a comparison has told the index, the verifier knows it too.
 */
#define CALL_POLICY(op)	CALL_POLICY_OF(&scxu_host, op)

/* For who has the host's address at hand. */
#define CALL_POLICY_OF(host, op)				\
do {								\
	register void *r1 asm("r1") = ctx;			\
	register volatile void *r3 asm("r3") = host;		\
								\
	asm volatile("r3 = *(u8 *)(r3 + 0);"			\
		     "r2 = %[array] ll;"			\
		     "if r3 != 0 goto 1f;"			\
		     "call 12; goto 4f;"			\
		     "1: if r3 != 1 goto 2f;"			\
		     "call 12; goto 4f;"			\
		     "2: if r3 != 2 goto 3f;"			\
		     "call 12; goto 4f;"			\
		     "3: r3 = 3; call 12;"			\
		     "4:"					\
		     : "+r"(r1), "+r"(r3)			\
		     : [array] "i"(&op_##op)			\
		     : "r0", "r2", "r4", "r5", "memory");	\
} while (0)

#define HOST_OP(ret, op)		\
	OP_ARRAY(op);			\
	SEC("struct_ops/host_" #op)	\
	ret host_##op(unsigned long long *ctx)

/* An op without which the kernel does nothing. */
#define HOST_OP_VOID(op)	HOST_OP(void, op) { CALL_POLICY(op); }
#define HOST_OP_ZERO(op)	HOST_OP(s32, op) { CALL_POLICY(op); return 0; }

/*
 * What a policy seldom needs stands in functions of its own: the registers and the stack that it takes are then not
 * saved and made on the way to every tail call.
 */

/* scx_select_cpu_dfl() and a direct dispatch where it found an idle CPU: do_select_task_rq_scx(). */
static __noinline s32 select_cpu_default(unsigned long long *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	bool is_idle = false;
	s32 cpu;

	cpu = scx_bpf_select_cpu_dfl(p, ctx[1], ctx[2], &is_idle);
	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, 0);
	return cpu;
}

HOST_OP(s32, select_cpu)
{
	CALL_POLICY(select_cpu);
	return select_cpu_default(ctx);
}

/*
 * The host sets SCX_OPS_ENQ_EXITING and SCX_OPS_ENQ_MIGRATION_DISABLED, so these tasks come here. For a policy without
 * the flag they go where the kernel would have put them (do_enqueue_task()): on the local DSQ.
 */
static __noinline bool goes_local(unsigned long long *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	u32 pinned = p->migration_disabled;
	u8 lacks = scxu_host.lacks[scxu_host.active.slot & (SCX_UPGRADE_NR_SLOTS - 1)];

	if ((p->flags & PF_EXITING) && (lacks & SCX_UPGRADE_LACKS_ENQ_EXITING))
		goto local;
	if (!(lacks & SCX_UPGRADE_LACKS_ENQ_MIGRATION_DISABLED))
		return false;
	/* A task that is enqueued as it leaves the CPU is current: leave out what running this program added. */
	if (pinned <= (p == bpf_get_current_task_btf() ? scxu_host.prolog : 0))
		return false;
local:
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, ctx[1]);
	return true;
}

/*
 * The global DSQ, with the default slice: do_enqueue_task(). In each slot whose policy has no enqueue, so that a slot always
 * has one, and nothing here needs the context after the call, nor any of the instructions that would save it. The map is
 * for libbpf, which takes the program's type from it.
 */
SEC("struct_ops/host_enqueue_default")
void BPF_PROG(host_enqueue_default, struct task_struct *p, u64 enq_flags)
{
	/* A task that the kernel re-enqueues now has waited on an orphan, longer than the tasks on this queue. */
	if (scxu_host.nr_orphans && (enq_flags & SCX_ENQ_REENQ))
		enq_flags |= SCX_ENQ_HEAD;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SEC(".struct_ops.link")
struct sched_ext_ops host_defaults = { .enqueue = (void *)host_enqueue_default, .name = "scx_upgrade" };

/* Were a slot empty all the same, the task would be on no queue: better that the kernel takes all of them. */
static __noinline int no_enqueue(void)
{
	scx_bpf_error("scx-upgrade: the active slot has no enqueue");
	return 0;
}

static __noinline int enqueue_emulating(unsigned long long *ctx);

HOST_OP(void, enqueue)
{
	struct task_struct *p = (struct task_struct *)ctx[0];

	if (unlikely((p->flags & PF_EXITING) | p->migration_disabled)) {
		enqueue_emulating(ctx);
		return;
	}
	CALL_POLICY(enqueue);
	no_enqueue();
}

static __noinline int enqueue_emulating(unsigned long long *ctx)
{
	if (goes_local(ctx))
		return 0;
	CALL_POLICY(enqueue);
	no_enqueue();
	return 0;
}

/* In its place in a host that has none of the flags that it emulates: see sdk/src/terms.rs. */
SEC("struct_ops/host_enqueue_all")
void host_enqueue_all(unsigned long long *ctx)
{
	CALL_POLICY(enqueue);
	no_enqueue();
}

HOST_OP_VOID(dequeue)

static __noinline int dispatch_among_orphans(unsigned long long *ctx);

/*
 * Orphans are the queues that a commit took from under their tasks: the running policy does not name them. Those who
 * wait there have waited longest and go first. It must not be left to user space alone: the task that it waits for to
 * end the grace period may be among them, and it may be killed. The timer of bpf/host/handover.bpf.h empties them where no CPU
 * comes here.
 */
HOST_OP(void, dispatch)
{
	volatile struct scxu_host *host = &scxu_host;

	/* In a register: the compiler would load the address for each of the two. */
	barrier_var(host);
	if (unlikely(host->nr_orphans)) {
		dispatch_among_orphans(ctx);
		return;
	}
	CALL_POLICY_OF(host, dispatch);
}

/* With a tail call of its own, which returns here: so the context is not saved on the way to the one above. */
static __noinline int dispatch_among_orphans(unsigned long long *ctx)
{
	if (!serve_orphans())
		CALL_POLICY(dispatch);
	return 0;
}

HOST_OP_VOID(tick)
HOST_OP_VOID(runnable)
HOST_OP_VOID(running)
HOST_OP_VOID(stopping)
HOST_OP_VOID(quiescent)

/* A plain yield gives up the slice; yielding to someone is refused: yield_task_scx(), yield_to_task_scx(). */
HOST_OP(bool, yield)
{
	CALL_POLICY(yield);

	if (!ctx[1])
		scx_bpf_task_set_slice((struct task_struct *)ctx[0], 0);
	return false;
}

HOST_OP_VOID(set_weight)
HOST_OP_VOID(set_cpumask)
HOST_OP_VOID(update_idle)

/* Without these two the kernel would take the scheduler off at every hotplug: handle_hotplug(). */
HOST_OP_VOID(cpu_online)
HOST_OP(void, cpu_offline)
{
	drain_offline_cpu(ctx[0]);
	CALL_POLICY(cpu_offline);
}

static __noinline s32 init_task_of_policy(unsigned long long *ctx);

/*
 * Every task has its record before the policy hears of it. Failing here fails the fork or the attach. Current is the
 * process that forks or attaches, which can migrate: what it shows is what entering an op adds (up to v6.17 always
 * one, since then none with CONFIG_PREEMPT_RCU).
 */
HOST_OP(s32, init_task)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	s32 ret;

	scxu_host.prolog = bpf_get_current_task_btf()->migration_disabled;
	if (!init_task_record(p, (struct scx_init_task_args *)ctx[1]))
		return -ENOMEM;
	ret = init_task_of_policy(ctx);
	/* The kernel calls no exit_task for it. */
	if (ret)
		untrack_task(p, ROW_NONE);
	return ret;
}

/*
 * With a tail call of its own, which returns here, and what the caller gets is what the policy returned. Neither the compiler nor an
 * older verifier knows that: a constant here they would take for what it always gets.
 */
static __noinline s32 init_task_of_policy(unsigned long long *ctx)
{
	CALL_POLICY(init_task);
	return scxu_host.zero;
}

/* A task that ends, or whose fork has failed, or the host is detached. */
HOST_OP(void, exit_task)
{
	struct task_struct *p = (struct task_struct *)ctx[0];

	untrack_task(p, ROW_REMOVED);
	/* Neither one that ends nor one whose fork failed: all of them go. */
	if (!(p->flags & PF_EXITING) && !((struct scx_exit_task_args *)ctx[1])->cancelled)
		scxu_host.task_table.detached = 1;
	CALL_POLICY(exit_task);
}

/*
 * A task that was between init_task and enable when a plan was committed is not on the task table. It passes here before any other
 * op.
 */
HOST_OP(void, enable)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	struct scxu_task_record *rec;

	rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (rec)
		track_task(p, rec);
	rec = scxu_task_record(p);
	if (scxu_host.restore_vtime && rec && rec->dsq_vtime) {
		scx_bpf_task_set_dsq_vtime(p, rec->dsq_vtime);
		rec->dsq_vtime = 0;
	}
	CALL_POLICY(enable);
}

/*
 * The kernel sets dsq_vtime to 0 after this (scx_disable_task(), on v7.3), also when the whole scheduler goes, and not
 * every going is announced: keep it for the case that the host is attached again.
 */
HOST_OP(void, disable)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	struct scxu_task_record *rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);

	if (rec)
		rec->dsq_vtime = p->scx.dsq_vtime;
	CALL_POLICY(disable);
}

HOST_OP_VOID(dump)
HOST_OP_VOID(dump_cpu)
HOST_OP_VOID(dump_task)

/*
 * As for tasks. An attach also passes here with cgroups that are being removed, and the kernel gives those no record:
 * to fail for one would fail the attach.
 */
HOST_OP(s32, cgroup_init)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0];

	if (cgrp->self.flags & CSS_ONLINE) {
		if (!scxu_cgroup_record(cgrp))
			return -ENOMEM;
		cgroup_index_alloc(cgrp);
	}
	CALL_POLICY(cgroup_init);
	return 0;
}

HOST_OP(void, cgroup_exit)
{
	cgroup_index_free((struct cgroup *)ctx[0]);
	CALL_POLICY(cgroup_exit);
}

HOST_OP_ZERO(cgroup_prep_move)
HOST_OP_VOID(cgroup_move)
HOST_OP_VOID(cgroup_cancel_move)
HOST_OP_VOID(cgroup_set_weight)
HOST_OP_VOID(cgroup_set_bandwidth)
HOST_OP_VOID(cgroup_set_idle)

/* The DSQs of the policy that is active at attach must exist before the first task is enqueued. */
s32 BPF_STRUCT_OPS_SLEEPABLE(host_init)
{
	init_handover();
	scxu_renew_run_base();
	return create_boot_queues();
}

void BPF_STRUCT_OPS(host_exit, struct scx_exit_info *ei)
{
	u32 key = 0;
	struct dump *dump = bpf_map_lookup_elem(&scxu_dump, &key);

	if (dump)
		bpf_probe_read_kernel_str(dump->text, sizeof(dump->text), ei->dump);
	scxu_record_exit(ei);
}

SCXU_SWEEP_PROGRAMS

/*
 * Tasks that are runnable and on no queue: the kernel has given them to a policy, which keeps them itself or has lost
 * them (SCX_OPSS_QUEUED, kernel/sched/ext/internal.h). Returns how many there are; the ids of the last are in the map.
 */
#define OPSS_MASK	3
#define OPSS_QUEUED	2
#define MAX_LOST_TASKS	4096

/* The count is in the map, and not in a register: the verifier would follow each of its values. */
struct lost_tasks {
	u32 found;
	u32 pids[MAX_LOST_TASKS];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct lost_tasks);
} scxu_lost_tasks SEC(".maps");

SEC("syscall")
int find_lost_tasks(void *unused)
{
	u32 key = 0;
	struct lost_tasks *list = bpf_map_lookup_elem(&scxu_lost_tasks, &key);
	struct task_struct *p;

	if (!list)
		return 0;
	list->found = 0;
	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		if ((p->scx.ops_state.counter & OPSS_MASK) != OPSS_QUEUED)
			continue;
		list->pids[list->found & (MAX_LOST_TASKS - 1)] = p->pid;
		list->found++;
	}
	bpf_rcu_read_unlock();
	return list->found;
}

#define OP(op)	.op = (void *)host_##op

SEC(".struct_ops.link")
struct sched_ext_ops host_ops = {
	OP(select_cpu), OP(enqueue), OP(dequeue), OP(dispatch), OP(tick), OP(runnable), OP(running), OP(stopping),
	OP(quiescent), OP(yield), OP(set_weight), OP(set_cpumask), OP(update_idle), OP(cpu_online), OP(cpu_offline),
	OP(init_task), OP(exit_task), OP(enable), OP(disable), OP(dump), OP(dump_cpu), OP(dump_task),
	OP(cgroup_init), OP(cgroup_exit), OP(cgroup_prep_move), OP(cgroup_move), OP(cgroup_cancel_move),
	OP(cgroup_set_weight), OP(cgroup_set_bandwidth), OP(cgroup_set_idle), OP(init), OP(exit),
	/* Overflowing it is fatal, and the largest of all policies decides. */
	.dispatch_max_batch = 64,
	/* The most that the kernel takes: a policy that stalls takes the host along. */
	.timeout_ms = 30000,
	.name = "scx_upgrade",
};

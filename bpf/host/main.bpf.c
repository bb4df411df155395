/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host: the one scheduler that the kernel knows. It is attached once, and stays. Each op reads the slot from the control
 * word and tail-calls the policy's program in that slot. Where the policy has no such op, the tail call falls through, and
 * the host does what the kernel does for a scheduler without the op (Linux v7.3 kernel/sched/ext/ext.c; each op names the
 * function; the same since v6.16).
 *
 * The host leaves out core_sched_before (its argument order differs between kernels, and defining it costs each dispatch),
 * cpu_acquire and cpu_release (deprecated, and defining them adds calls), and sub_* (they change which scheduler an
 * unassociated program acts on).
 *
 * The parts of the host are headers of this one source. Linked from several sources they would call each other through global
 * functions. The verifier takes a global function that starts a work item for sleepable, because the work item's callback is,
 * and refuses cgroup_index_alloc() in host_cgroup_init() (seen on v7.3.4).
 */
#include <scx_upgrade/records.bpf.h>
#include <scx_upgrade/sweep.bpf.h>
#include "queues.bpf.h"
#include "task_table.bpf.h"
#include "handover.bpf.h"

char _license[] SEC("license") = "GPL";

/* User space's registry of slots, queues and columns: engine/src/host/registry.rs. One map update is one transaction. */
struct registry { u8 bytes[128 * 1024]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct registry);
} scxu_registry SEC(".maps");

/*
 * An update of a map of maps from user space returns after an RCU grace period (maybe_wait_bpf_programs(),
 * kernel/bpf/syscall.c). A swap uses this to wait until no op of the old policy is in flight.
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
 * The kernel's debug dump of the last ejection. As long as the kernel's default dump (SCX_EXIT_DUMP_DFL_LEN,
 * kernel/sched/ext/internal.h).
 */
struct dump { char text[32768]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct dump);
} scxu_dump SEC(".maps");

/*
 * One program array per op, because the kernel requires equal prototypes in an array. User space finds it by the prefix
 * `op_`.
 */
#define OP_ARRAY(op)						\
	struct {						\
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);		\
		__uint(max_entries, SCX_UPGRADE_NR_SLOTS);	\
		__type(key, u32);				\
		__type(value, u32);				\
	} op_##op SEC(".maps")

/*
 * The tail call into the active policy. Execution continues after it only if the policy has no such op. With constant indices
 * the JIT patches each call into a direct jump; a variable index would be an indirect jump. It is assembly because it is what
 * the host adds to each op of each context switch. r1 keeps the context throughout, where the compiler would save it, and two
 * more registers, around each of four calls. The verifier learns the index from the comparison.
 */
#define CALL_POLICY(op)	CALL_POLICY_OF(&scxu_host, op)

/* The same where the host's address is in a register already. */
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

/* Ops without which the kernel does nothing. */
#define HOST_OP_VOID(op)	HOST_OP(void, op) { CALL_POLICY(op); }
#define HOST_OP_ZERO(op)	HOST_OP(s32, op) { CALL_POLICY(op); return 0; }

/*
 * Rare paths are functions of their own. Inlined, their registers and stack would be saved and set up on the way to every
 * tail call.
 */

/* scx_select_cpu_dfl(), and a direct dispatch if it found an idle CPU: do_select_task_rq_scx(). */
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
 * The host sets SCX_OPS_ENQ_EXITING and SCX_OPS_ENQ_MIGRATION_DISABLED, so the kernel passes such tasks to its enqueue. For a
 * policy without the flag the host does what the kernel would (do_enqueue_task()): it inserts them into the local DSQ.
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
	/* A task that is enqueued as it leaves the CPU is current: subtract what entering this program added. */
	if (pinned <= (p == bpf_get_current_task_btf() ? scxu_host.prolog : 0))
		return false;
local:
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, ctx[1]);
	return true;
}

/*
 * The global DSQ, with the default slice: do_enqueue_task(). User space puts this program into each slot whose policy has no
 * enqueue. So a slot always has one, and host_enqueue() needs the context no more after the tail call, nor the instructions
 * to save it. libbpf takes the program's type from the struct_ops map below.
 */
SEC("struct_ops/host_enqueue_default")
void BPF_PROG(host_enqueue_default, struct task_struct *p, u64 enq_flags)
{
	/* A task that is re-enqueued now has waited on an orphan, longer than the tasks on the global DSQ. */
	if (scxu_host.nr_orphans && (enq_flags & SCX_ENQ_REENQ))
		enq_flags |= SCX_ENQ_HEAD;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SEC(".struct_ops.link")
struct sched_ext_ops host_defaults = { .enqueue = (void *)host_enqueue_default, .name = "scx_upgrade" };

/* An empty slot would lose the task. An ejection of the host, which moves all tasks to the fair class, is better. */
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

/* enqueue of a host without the flags above, so with nothing to emulate: see engine/src/host/attach_config.rs. */
SEC("struct_ops/host_enqueue_all")
void host_enqueue_all(unsigned long long *ctx)
{
	CALL_POLICY(enqueue);
	no_enqueue();
}

HOST_OP_VOID(dequeue)

static __noinline int dispatch_among_orphans(unsigned long long *ctx);

/*
 * Orphans are DSQs with tasks that the active policy does not name, because a commit replaced the policy that did. Their
 * tasks have waited longest and go first. This cannot be left to user space alone: the task that the swap waits for may be on
 * an orphan, and the swap's process may be killed. Where no CPU calls dispatch, the timer of handover.bpf.h drains the
 * orphans.
 */
HOST_OP(void, dispatch)
{
	volatile struct scxu_host *host = &scxu_host;

	/* Keep the address in a register: the compiler would load it twice. */
	barrier_var(host);
	if (unlikely(host->nr_orphans)) {
		dispatch_among_orphans(ctx);
		return;
	}
	CALL_POLICY_OF(host, dispatch);
}

/* Has a tail call of its own, which returns here. So host_dispatch() need not save the context before its own. */
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

/* sched_yield() gives up the slice, and a yield to another task is refused: yield_task_scx(), yield_to_task_scx(). */
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

/* Without these two the kernel disables the scheduler at every hotplug: handle_hotplug(). */
HOST_OP_VOID(cpu_online)
HOST_OP(void, cpu_offline)
{
	drain_offline_cpu(ctx[0]);
	CALL_POLICY(cpu_offline);
}

static __noinline s32 init_task_of_policy(unsigned long long *ctx);

/*
 * Each task gets its record before the policy's init_task. An error here fails the fork or the attach. The current task forks
 * or attaches, and can migrate. So its migration_disabled is what entering an op adds: 1 up to v6.17, and since then 0 with
 * CONFIG_PREEMPT_RCU.
 */
HOST_OP(s32, init_task)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	s32 ret;

	scxu_host.prolog = bpf_get_current_task_btf()->migration_disabled;
	if (!init_task_record(p, (struct scx_init_task_args *)ctx[1]))
		return -ENOMEM;
	ret = init_task_of_policy(ctx);
	/* After an error the kernel does not call exit_task. */
	if (ret)
		untrack_task(p, ROW_NONE);
	return ret;
}

/*
 * Has a tail call of its own, which returns here with the policy's return value. Neither the compiler nor an older verifier
 * knows that. They would take a constant in this return statement for the only value that the caller can get.
 */
static __noinline s32 init_task_of_policy(unsigned long long *ctx)
{
	CALL_POLICY(init_task);
	return scxu_host.zero;
}

/* Called when a task exits, when its fork has failed, or when the host is detached. */
HOST_OP(void, exit_task)
{
	struct task_struct *p = (struct task_struct *)ctx[0];

	untrack_task(p, ROW_REMOVED);
	/* Neither exiting nor a failed fork: the host is being detached. */
	if (!(p->flags & PF_EXITING) && !((struct scx_exit_task_args *)ctx[1])->cancelled)
		scxu_host.task_table.detached = 1;
	CALL_POLICY(exit_task);
}

/*
 * A task that was between init_task and enable during a commit is not in the task table, so the sweep missed it. Its record
 * is migrated here, before any other op for the task.
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
 * The kernel sets dsq_vtime to 0 after this op (scx_disable_task(), v7.3), also when it disables the whole scheduler, which
 * may come without notice. So keep the value for the next attach of the host.
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
 * Creates the cgroup's record. An attach also calls this for cgroups that are being removed, for which the kernel allocates
 * no storage. To fail for one of them would fail the attach.
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

/* Creates the DSQs of the active policy before the kernel enqueues the first task. */
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
 * Finds runnable tasks that are on no DSQ: the kernel has passed them to a policy, which keeps them itself or has lost them
 * (SCX_OPSS_QUEUED, kernel/sched/ext/internal.h). Returns their number. The map has the pids of the last ones.
 */
#define OPSS_MASK	3
#define OPSS_QUEUED	2
#define MAX_LOST_TASKS	4096

/* The count is in the map and not in a variable, which the verifier would follow from value to value. */
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
	/* An overflow ejects the scheduler. So as large as any policy needs. */
	.dispatch_max_batch = 64,
	/* The kernel's maximum. A policy that stalls takes the host down with it. */
	.timeout_ms = 30000,
	.name = "scx_upgrade",
};

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For policy authors. Declare the state, the queues, the ops:
 *
 *	struct policy_task {
 *		u64	vtime;
 *		u32	burst __default(20);
 *	} __policy_state;
 *
 *	SCXU_QUEUE_VTIME(shared);
 *
 *	void BPF_STRUCT_OPS(my_enqueue, struct task_struct *p, u64 enq_flags) { ... }
 *
 *	SCXU_POLICY_DEFINE("my_policy", .enqueue = (void *)my_enqueue, ...);
 *
 * The fields are columns: what the next version names with the same name and type it finds with the value that this
 * version left. Ops are never sleepable. init_task and enable run for tasks that are born under the policy, not for
 * those it takes over: what every task must start with is a default of its column.
 *
 * What no tag below can express a conversion of the author's own does: see convert.bpf.h.
 */
#ifndef __SCX_UPGRADE_POLICY_BPF_H
#define __SCX_UPGRADE_POLICY_BPF_H

#include <scx_upgrade/lib/columns.bpf.h>
#include <scx_upgrade/convert.bpf.h>
#include <scx_upgrade/queues.bpf.h>

#ifndef SCX_UPGRADE_DECLARE
char _license[] SEC("license") = "GPL";
#endif

/* Marks a state struct. Its fields are found by name when the policy is loaded, not by offset. */
#define __policy_state		__attribute__((preserve_access_index))

/* The value of a column that no earlier policy left: an integer literal, zero if there is none. */
#define __default(value)	__attribute__((btf_decl_tag("scx:default=" #value)))

/* The column is the predecessor's @name, under a new name, or made of it. */
#define __from(name)		__attribute__((btf_decl_tag("scx:from=" #name)))

/*
 * The column is the predecessor's, rescaled: __scale(A/B+C) takes v to v * A / B + C, toward zero and without overflow.
 * A rollback turns it round.
 */
#define __scale(rule)		__attribute__((btf_decl_tag("scx:scale=" #rule)))

/* The column may be narrower than the predecessor's: what does not fit becomes the nearest that does. */
#define __saturate		__attribute__((btf_decl_tag("scx:saturate")))

/*
 * The unit. One that differs from the predecessor's is an error, unless a scale says how to get there. So is a unit that
 * only one of two policies declares; versions of one policy may add theirs later.
 */
#define __unit(unit)		__attribute__((btf_decl_tag("scx:unit=" #unit)))

/*
 * The column holds times that scx_bpf_now() gave. That clock starts with the boot: a snapshot of another boot does not
 * restore such a column. For another clock or unit write __unit(us@bpf_ktime_get_ns) and so on.
 */
#define __timestamp		__unit(ns@scx_bpf_now)

/*
 * The column says what is true only now: which task runs, how many tasks wait, since when. A swap carries it. A snapshot
 * neither saves nor restores it, because all that may have changed until the restore.
 */
#define __momentary		__attribute__((btf_decl_tag("scx:momentary")))

/*
 * Dispatch queues. The same name, order and span in the next version is the same queue, with the tasks that wait on it.
 * An order is for ever: the kernel ejects a scheduler that mixes both on one queue. Of a single queue @name is the id;
 * the members of the others are had by:
 *
 *	SCXU_QUEUE_FIFO(name)			name
 *	SCXU_QUEUE_FIFO_PER_CPU(name)		scxu_queue_of_cpu(name, cpu)
 *	SCXU_QUEUE_FIFO_PER_LLC(name)		scxu_queue_of_llc(name, llc)
 *	SCXU_QUEUE_FIFO_PER_CGROUP(name)	scxu_queue_of_cgroup(name, cgrp)
 *
 * and the same with VTIME. Each span has a type of its own, so that another's accessor does not compile.
 */
#define SCXU_QUEUE(type, name, kind)	\
	SCXU_GLOBAL const volatile type name __attribute__((btf_decl_tag("scx:queue=" kind))) SEC(".rodata.scxu_q")

#define SCXU_QUEUE_FIFO(name)			SCXU_QUEUE(u64, name, "fifo")
#define SCXU_QUEUE_VTIME(name)		SCXU_QUEUE(u64, name, "vtime")
#define SCXU_QUEUE_FIFO_PER_CPU(name)		SCXU_QUEUE(struct scxu_per_cpu, name, "fifo,per-cpu")
#define SCXU_QUEUE_VTIME_PER_CPU(name)	SCXU_QUEUE(struct scxu_per_cpu, name, "vtime,per-cpu")
#define SCXU_QUEUE_FIFO_PER_LLC(name)		SCXU_QUEUE(struct scxu_per_llc, name, "fifo,per-llc")
#define SCXU_QUEUE_VTIME_PER_LLC(name)	SCXU_QUEUE(struct scxu_per_llc, name, "vtime,per-llc")
#define SCXU_QUEUE_FIFO_PER_CGROUP(name)	SCXU_QUEUE(struct scxu_per_cgroup, name, "fifo,per-cgroup")
#define SCXU_QUEUE_VTIME_PER_CGROUP(name)	SCXU_QUEUE(struct scxu_per_cgroup, name, "vtime,per-cgroup")

struct scxu_per_cpu	{ u64 cpu_base; };
struct scxu_per_llc	{ u64 llc_base; };
struct scxu_per_cgroup	{ u64 cgroup_base; };

/* The queue of a CPU. There is one for each that the machine can have: below scx_bpf_nr_cpu_ids(). */
#define scxu_queue_of_cpu(name, cpu)		((name).cpu_base | (u32)(cpu))

/* The queue of an LLC, 0 to scxu_nr_llcs() - 1. There is no other: a larger number is an error that the kernel ejects for. */
#define scxu_queue_of_llc(name, llc)		((name).llc_base | (u32)(llc))

/*
 * The queue of a cgroup. One that is just being made, or that is gone while its last tasks end, may share its nearest
 * ancestor's; the same op may so get another queue for a task later than it did before.
 */
#define scxu_queue_of_cgroup(name, cgrp)	((name).cgroup_base | scxu_cgroup_index(cgrp))

/* The queue with a number below scxu_nr_cgroup_queues(), whether a cgroup has it at present or not: to walk over them all. */
#define scxu_cgroup_queue(name, number)	((name).cgroup_base | (u32)(number))

/* The LLC that a CPU is at: 0 to scxu_nr_llcs() - 1, the same in every policy while the host lives. */
static __always_inline u32 scxu_llc_of_cpu(s32 cpu)
{
	return scxu_host.llc_of_cpu[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

static __always_inline u32 scxu_nr_llcs(void)
{
	return scxu_host.nr_llcs;
}

/* The core of a CPU: the number of its first CPU, so that this one's record can stand for the core. */
static __always_inline s32 scxu_core_of_cpu(s32 cpu)
{
	return scxu_host.core_of_cpu[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

/* The CPU of the same core that follows, round in a ring; @cpu itself if its core has no other. */
static __always_inline s32 scxu_next_sibling(s32 cpu)
{
	return scxu_host.next_sibling[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

/* How many queues each per-cgroup DSQ group has now. It only grows. */
static __always_inline u32 scxu_nr_cgroup_queues(void)
{
	return scxu_host.cgroup_members;
}

#ifdef SCX_UPGRADE_DECLARE
extern const volatile struct scxu_sdk scxu_sdk SEC(".rodata.scxu_sdk");
#else
const volatile struct scxu_sdk scxu_sdk SEC(".rodata.scxu_sdk") = { .abi = SCX_UPGRADE_ABI };
#endif

/* Is this the policy that runs? An op in flight may belong to one that has just been replaced. */
static __always_inline bool scxu_is_active(void)
{
	return scxu_host.callers[scxu_host.active.slot & (SCX_UPGRADE_NR_SLOTS - 1)] == scxu_sdk.load;
}

/*
 * The number of this run of the policy: each commit and each attach begins another. It is never 0. Note it beside what is
 * true only while the policy runs, such as how many tasks wait; what has another number is void. The generation alone does
 * not do: it is the same again where a reattach is undone, and starts from 1 again after a stop.
 */
static __always_inline u32 scxu_run_id(void)
{
	return (scxu_host.run_base + scxu_host.active.generation) | 1U << 31;
}

struct policy_task;
struct policy_cgroup;
struct policy_cpu;
struct policy_global;

#ifndef SCX_UPGRADE_DECLARE
/*
 * So that a struct of state is in the BTF even where no op reads a field of it: else a version that does not would seem to
 * have dropped the whole scope.
 */
const struct policy_task *const scxu_task_columns = NULL;
const struct policy_cgroup *const scxu_cgroup_columns = NULL;
const struct policy_cpu *const scxu_cpu_columns = NULL;
const struct policy_global *const scxu_global_columns = NULL;
#endif

/* State of @p, or NULL when there is no memory for it. */
static __always_inline struct policy_task *scxu_task_state(struct task_struct *p)
{
	return (struct policy_task *)scxu_task_record(p);
}

/* State of @cgrp, or NULL when there is no memory for it. */
static __always_inline struct policy_cgroup *scxu_cgroup_state(struct cgroup *cgrp)
{
	return (struct policy_cgroup *)scxu_cgroup_record(cgrp);
}

/*
 * The same, if it is there and up to date: NULL where the next to call one of the above would make it so. For loops: the
 * verifier follows what makes a record or brings it up to date each time round, and gives up.
 */
static __always_inline struct policy_task *scxu_task_peek(struct task_struct *p)
{
	struct scxu_task_record *rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);

	return rec && !scxu_is_stale(rec) ? (struct policy_task *)rec : NULL;
}

static __always_inline struct policy_cgroup *scxu_cgroup_peek(struct cgroup *cgrp)
{
	struct scxu_cgroup_record *rec = bpf_cgrp_storage_get(&scxu_cgroup_records, cgrp, 0, 0);

	return rec && !scxu_is_stale(rec) ? (struct policy_cgroup *)rec : NULL;
}

static __always_inline struct policy_cpu *scxu_cpu_peek(u32 cpu)
{
	struct scxu_cpu_record *rec = bpf_map_lookup_elem(&scxu_cpu_records, &cpu);

	return rec && !scxu_is_stale(rec) ? (struct policy_cpu *)rec : NULL;
}

/* State of @cpu, which need not be this one, or NULL if there is no such CPU. */
static __always_inline struct policy_cpu *scxu_cpu_state(u32 cpu)
{
	return (struct policy_cpu *)scxu_cpu_record(cpu);
}

/* The policy's one global record. */
static __always_inline struct policy_global *scxu_global_state(void)
{
	return (struct policy_global *)scxu_the_global_record();
}

#ifndef SCX_UPGRADE_DECLARE
/*
 * init and exit of a policy that is attached directly, without the host. The host has its own and never calls these,
 * so they alone may be sleepable.
 */
s32 BPF_STRUCT_OPS_SLEEPABLE(policy_direct_init)
{
	scxu_renew_run_base();
	return scxu_create_direct_queues(scxu_sdk.direct_queues);
}

void BPF_STRUCT_OPS(policy_direct_exit, struct scx_exit_info *ei)
{
	scxu_record_exit(ei);
}

#define SCXU_POLICY_DEFINE(policy_name, ...)			\
	SCX_OPS_DEFINE(policy_ops,				\
		       .init = (void *)policy_direct_init,	\
		       .exit = (void *)policy_direct_exit,	\
		       .name = policy_name,			\
		       __VA_ARGS__)
#endif /* SCX_UPGRADE_DECLARE */

#endif /* __SCX_UPGRADE_POLICY_BPF_H */

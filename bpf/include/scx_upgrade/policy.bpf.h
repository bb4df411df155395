/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For policy authors. A policy declares its state, its queues and its ops:
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
 * The fields are columns. A field of the next version with the same name and type starts with the value that this version
 * left.
 *
 * Ops are never sleepable. The kernel calls init_task and enable for tasks that are created while the policy is active, and
 * not for the tasks that it takes over. So the initial value of a field is the default of its column, and not what init_task
 * stores.
 *
 * convert.bpf.h has conversions that no tag below can express. declare.bpf.h is for the further sources of a policy.
 */
#ifndef __SCX_UPGRADE_POLICY_BPF_H
#define __SCX_UPGRADE_POLICY_BPF_H

#include <scx_upgrade/lib/columns.bpf.h>
#include <scx_upgrade/convert.bpf.h>
#include <scx_upgrade/queues.bpf.h>

#ifndef SCX_UPGRADE_DECLARE
char _license[] SEC("license") = "GPL";
#endif

/* Marks a struct of state. The SDK finds its fields by name when it loads the policy, not by offset. */
#define __policy_state		__attribute__((preserve_access_index))

/* The initial value of a new column: an integer literal. Without this tag it is zero. */
#define __default(value)	__attribute__((btf_decl_tag("scx:default=" #value)))

/* The column is made from the earlier policy's column @name. */
#define __from(name)		__attribute__((btf_decl_tag("scx:from=" #name)))

/*
 * The column is the earlier policy's column, rescaled: __scale(A/B+C) converts v to v * A / B + C. It rounds toward zero and
 * saturates. A rollback applies the inverse.
 */
#define __scale(rule)		__attribute__((btf_decl_tag("scx:scale=" #rule)))

/* The column may be narrower than the earlier policy's. A value that does not fit becomes the nearest one that does. */
#define __saturate		__attribute__((btf_decl_tag("scx:saturate")))

/*
 * The unit of the column. A unit that differs from the earlier policy's is an error, unless __scale() converts it. So is a
 * unit that only one of two policies declares. Versions of one policy may add a unit later.
 */
#define __unit(unit)		__attribute__((btf_decl_tag("scx:unit=" #unit)))

/*
 * The column holds time stamps from scx_bpf_now(). That clock starts at boot, so a snapshot of another boot does not restore
 * the column. For another clock or unit use __unit(us@bpf_ktime_get_ns) and the like.
 */
#define __timestamp		__unit(ns@scx_bpf_now)

/*
 * The column describes the present: the running task, the number of waiting tasks, a start time. A swap carries it. A
 * snapshot neither saves nor restores it, because the present may differ when the snapshot is restored.
 */
#define __momentary		__attribute__((btf_decl_tag("scx:momentary")))

/*
 * Dispatch queues. A queue of the same name, order and range in the next version is the same DSQ, with the tasks that wait on
 * it. Its order never changes: the kernel ejects a scheduler that mixes FIFO and vtime on one DSQ. @name is the id of a
 * single queue. The others have an accessor for their members:
 *
 *	SCXU_QUEUE_FIFO(name)			name
 *	SCXU_QUEUE_FIFO_PER_CPU(name)		scxu_queue_of_cpu(name, cpu)
 *	SCXU_QUEUE_FIFO_PER_LLC(name)		scxu_queue_of_llc(name, llc)
 *	SCXU_QUEUE_FIFO_PER_CGROUP(name)	scxu_queue_of_cgroup(name, cgrp)
 *
 * VTIME in place of FIFO gives a queue by virtual time. Each range has a type of its own, so a wrong accessor does not
 * compile.
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

/* The queue of a CPU. Each possible CPU has one: @cpu is below scx_bpf_nr_cpu_ids(). */
#define scxu_queue_of_cpu(name, cpu)		((name).cpu_base | (u32)(cpu))

/* The queue of an LLC, 0 to scxu_nr_llcs() - 1. The kernel ejects a scheduler that uses a larger number. */
#define scxu_queue_of_llc(name, llc)		((name).llc_base | (u32)(llc))

/*
 * The queue of a cgroup. A cgroup that is being created, or that is removed while its last tasks exit, may share the queue of
 * its nearest ancestor. So the queue of a task may change between two ops.
 */
#define scxu_queue_of_cgroup(name, cgrp)	((name).cgroup_base | scxu_cgroup_index(cgrp))

/*
 * The queue with an index below scxu_nr_cgroup_queues(), whether a cgroup has this index or not. For loops over all queues.
 */
#define scxu_cgroup_queue(name, number)	((name).cgroup_base | (u32)(number))

/* The LLC of a CPU, 0 to scxu_nr_llcs() - 1. It is the same in every policy while the host lives. */
static __always_inline u32 scxu_llc_of_cpu(s32 cpu)
{
	return scxu_host.llc_of_cpu[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

static __always_inline u32 scxu_nr_llcs(void)
{
	return scxu_host.nr_llcs;
}

/* The core of a CPU: the number of its first CPU. So the record of that CPU can hold the state of the core. */
static __always_inline s32 scxu_core_of_cpu(s32 cpu)
{
	return scxu_host.core_of_cpu[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

/* The next SMT sibling of a CPU, in a ring; @cpu itself if its core has one CPU. */
static __always_inline s32 scxu_next_sibling(s32 cpu)
{
	return scxu_host.next_sibling[cpu & (SCX_UPGRADE_MAX_CPUS - 1)];
}

/* The number of queues in each per-cgroup DSQ group. It only grows. */
static __always_inline u32 scxu_nr_cgroup_queues(void)
{
	return scxu_host.cgroup_members;
}

#ifdef SCX_UPGRADE_DECLARE
extern const volatile struct scxu_sdk scxu_sdk SEC(".rodata.scxu_sdk");
#else
const volatile struct scxu_sdk scxu_sdk SEC(".rodata.scxu_sdk") = { .abi = SCX_UPGRADE_ABI };
#endif

/* Is this policy active? An op in flight may belong to a policy that has just been replaced. */
static __always_inline bool scxu_is_active(void)
{
	return scxu_host.callers[scxu_host.active.slot & (SCX_UPGRADE_NR_SLOTS - 1)] == scxu_sdk.load;
}

/*
 * The number of this run of the policy: each commit and each attach begins another run. It is never 0. Store it beside state
 * that is true only while the policy is active, such as a count of waiting tasks. Such state with another number is void. The
 * generation alone is not enough: it repeats when a reattach is undone, and starts from 1 again after a stop.
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
 * These keep the structs of state in the BTF even if no op accesses a field. Without them such a version would seem to have
 * dropped the whole scope.
 */
const struct policy_task *const scxu_task_columns = NULL;
const struct policy_cgroup *const scxu_cgroup_columns = NULL;
const struct policy_cpu *const scxu_cpu_columns = NULL;
const struct policy_global *const scxu_global_columns = NULL;
#endif

/* The state of @p, or NULL if there is no memory for it. */
static __always_inline struct policy_task *scxu_task_state(struct task_struct *p)
{
	return (struct policy_task *)scxu_task_record(p);
}

/* The state of @cgrp, or NULL if there is no memory for it. */
static __always_inline struct policy_cgroup *scxu_cgroup_state(struct cgroup *cgrp)
{
	return (struct policy_cgroup *)scxu_cgroup_record(cgrp);
}

/*
 * The same, but NULL if the record does not exist or is stale. For loops: the verifier would follow the code that creates or
 * migrates a record in each iteration, and give up.
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

/* The state of @cpu, which may be another CPU, or NULL if there is no such CPU. */
static __always_inline struct policy_cpu *scxu_cpu_state(u32 cpu)
{
	return (struct policy_cpu *)scxu_cpu_record(cpu);
}

/* The policy's global state. */
static __always_inline struct policy_global *scxu_global_state(void)
{
	return (struct policy_global *)scxu_the_global_record();
}

#ifndef SCX_UPGRADE_DECLARE
/*
 * init and exit of a policy that is attached directly, without the host. The host has its own, and never calls these. So only
 * these may be sleepable.
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who runs beside whom: at each switch the task that comes is compared with what the other CPUs of the core have as their
 * current task. Shares neither code nor maps with any scheduler.
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define PAIRS_MAX_CPUS	64
#define PAIRS_MAX_RT	100	/* priorities below it are real-time */

extern struct rq runqueues __ksym;

/* By CPU: the CPUs of its core as a mask. Set before it is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PAIRS_MAX_CPUS);
	__type(key, u32);
	__type(value, u64);
} pairs_cores SEC(".maps");

/* Mirrored by `pairs::Seen`. */
struct pairs_seen {
	u64	switches;		/* to a task of a group */
	u64	same;			/* a sibling had one of the same group then */
	u64	other;			/* of another */
	u32	came, beside;		/* the PIDs of the last such pair */
	u64	came_group, beside_group;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pairs_seen);
} pairs_seen SEC(".maps");

/* The id of the cgroup below the root that a task is in, the root's if it is there itself; 0 for who is in no group. */
static __noinline u64 pairs_group(struct task_struct *p)
{
	struct cgroup *cgrp, *top = NULL;

	if (!p || BPF_CORE_READ(p, flags) & (PF_KTHREAD | PF_IDLE) || BPF_CORE_READ(p, prio) < PAIRS_MAX_RT)
		return 0;
	cgrp = BPF_CORE_READ(p, cgroups, dfl_cgrp);
	if (BPF_CORE_READ(cgrp, level) > 1) {
		bpf_probe_read_kernel(&top, sizeof(top), (void *)cgrp + bpf_core_field_offset(struct cgroup, ancestors) +
				      sizeof(void *));
		cgrp = top;
	}
	return BPF_CORE_READ(cgrp, kn, id);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(pairs_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	u32 cpu = bpf_get_smp_processor_id(), zero = 0, i;
	u64 *core = bpf_map_lookup_elem(&pairs_cores, &cpu);
	struct pairs_seen *seen = bpf_map_lookup_elem(&pairs_seen, &zero);
	u64 group = pairs_group(next), siblings;

	if (!core || !seen || !group)
		return 0;
	__sync_fetch_and_add(&seen->switches, 1);
	siblings = *core;
	bpf_for(i, 0, PAIRS_MAX_CPUS) {
		struct task_struct *curr;
		struct rq *rq;
		u64 beside;

		if (i == cpu || !(siblings >> (i & 63) & 1))
			continue;
		rq = bpf_per_cpu_ptr(&runqueues, i);
		if (!rq)
			continue;
		curr = BPF_CORE_READ(rq, curr);
		beside = pairs_group(curr);
		if (!beside)
			continue;
		if (beside == group) {
			__sync_fetch_and_add(&seen->same, 1);
			continue;
		}
		__sync_fetch_and_add(&seen->other, 1);
		seen->came = next->pid;
		seen->came_group = group;
		seen->beside = BPF_CORE_READ(curr, pid);
		seen->beside_group = beside;
	}
	return 0;
}

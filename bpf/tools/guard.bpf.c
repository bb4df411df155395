/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guard's counters during probation: how long tasks wait for a CPU after a wake-up, how often CPUs switch, and how long
 * the task waits that waits longest. User space attaches these programs while it watches. They share the host's control word,
 * so a count belongs to one generation.
 *
 * Delays are counted in classes, four to each doubling. A class is at most a quarter wider than the one before, which is
 * finer than any decision needs.
 */
#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

char _license[] SEC("license") = "GPL";

volatile struct scxu_host scxu_host SEC(".data.scxu_host");

#define GUARD_CLASSES	256	/* 64 doublings of ns, each in four */

struct guard_counts {
	u64	delays[GUARD_CLASSES];
	u64	switches;		/* to tasks other than idle */
	u64	generation;		/* the generation of these counts */
};

/* Indexed by the lowest bit of the generation: the current one and the one before. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct guard_counts);
} guard_counts SEC(".maps");

struct guard_task {
	u64	waits_since;		/* ns; 0 if it does not wait for a CPU */
	u64	woke;			/* it waits because it woke up, not because it was preempted */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct guard_task);
} guard_tasks SEC(".maps");

/* The result of guard_find_longest(). */
struct guard_longest {
	u64	waits_ns;		/* of the sched_ext task that waits longest; 0 if none waits */
	u32	pid;
	u32	waiting;		/* number of sched_ext tasks that wait */
};

static __always_inline struct guard_counts *guard_counting(void)
{
	u32 generation = scxu_host.active.generation, key = generation & 1;
	struct guard_counts *c = bpf_map_lookup_elem(&guard_counts, &key);

	/* Counts of an older generation: clear them. The map is per CPU, so no other CPU counts meanwhile. */
	if (c && c->generation != generation) {
		u32 i;

		bpf_for(i, 0, GUARD_CLASSES)
			c->delays[i & (GUARD_CLASSES - 1)] = 0;
		c->switches = 0;
		c->generation = generation;
	}
	return c;
}

/* floor(log2(ns)) * 4, plus the two bits after the first. */
static __always_inline u32 guard_class(u64 ns)
{
	u32 log = 0, i;
	u64 rest = ns;

	if (ns < 4)
		return ns;
	_Pragma("unroll")
	for (i = 32; i; i >>= 1) {
		if (rest >> i) {
			rest >>= i;
			log += i;
		}
	}
	return (log << 2 | (ns >> (log - 2) & 3)) & (GUARD_CLASSES - 1);
}

extern const void ext_sched_class __ksym;

static __always_inline void guard_waits(struct task_struct *p, bool woke)
{
	struct guard_task *t = bpf_task_storage_get(&guard_tasks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!t)
		return;
	t->woke = woke;
	t->waits_since = bpf_ktime_get_ns();
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(guard_wakeup, struct task_struct *p)
{
	guard_waits(p, true);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(guard_wakeup_new, struct task_struct *p)
{
	guard_waits(p, true);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(guard_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	struct guard_counts *c;
	struct guard_task *t;
	s64 waited;

	if ((preempt || !prev_state) && !(prev->flags & PF_IDLE))
		guard_waits(prev, false);
	if (next->flags & PF_IDLE)
		return 0;
	c = guard_counting();
	if (!c)
		return 0;
	c->switches++;
	t = bpf_task_storage_get(&guard_tasks, next, 0, 0);
	if (!t)
		return 0;
	/* The clocks of two CPUs may differ a little. */
	waited = bpf_ktime_get_ns() - t->waits_since;
	if (t->waits_since && t->woke)
		c->delays[guard_class(waited > 0 ? waited : 0)]++;
	t->waits_since = 0;
	return 0;
}

/* Find the sched_ext task that waits longest. A task that began to wait before the guard was attached is not known. */
SEC("syscall")
int guard_find_longest(struct guard_longest *args)
{
	struct guard_longest found = {};
	u64 now = bpf_ktime_get_ns();
	struct task_struct *p;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		struct guard_task *t;
		u64 since;

		/* Does not read on_rq and on_cpu, whose types differ between kernels. A running task has waits_since 0. */
		if ((u64)p->sched_class != (u64)&ext_sched_class)
			continue;
		t = bpf_task_storage_get(&guard_tasks, p, 0, 0);
		since = t ? *(volatile u64 *)&t->waits_since : 0;
		if (!since || since >= now)
			continue;
		found.waiting++;
		if (now - since > found.waits_ns) {
			found.waits_ns = now - since;
			found.pid = p->pid;
		}
	}
	bpf_rcu_read_unlock();
	*args = found;
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_core: at any time only tasks of one trust group run on the CPUs of a core (its SMT siblings). A trust group is the
 * cgroup at a given depth below the root, with all below it; tasks in cgroups that are not so deep are with those of the
 * same cgroup only. Kernel threads are of no group and may run beside anyone: what they run is the kernel's, which every
 * task enters anyway.
 *
 * A CPU takes a task only if
 *
 * - the core's claim, one word with a group and the CPUs that hold it, is free or the group's: it is taken by exchange, so
 *   two CPUs that choose at the same time cannot both win;
 * - no sibling's current task is of another group. The claim alone does not do: a sibling that has just changed its claim
 *   is still about to leave the old task; one that was running when this policy took over holds no claim; and a real-time
 *   task holds none ever, but belongs to a group.
 *
 * A CPU that finds only tasks of other groups is forced to idle, and is woken when its sibling changes over. Tasks of all
 * groups wait on the same queues by virtual time, and a task goes on only while it is before all that wait for its core. That
 * includes tasks that may run on a sibling only: the core, not the CPU, is what groups share. Where someone of another group
 * is before it and has waited for longer than drain_ns, the CPUs of a core leave off one after the other: the last has a free
 * choice.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/force_idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	u64	core_waits_since_ns __momentary __timestamp;
} __policy_state;

/* core_claim is of the whole core, and counts in the record of its first CPU. */
struct policy_cpu {
	u64	core_claim __momentary;		/* group << 32 | run << 8 | who holds it, a bit for each sibling */
	/* Since when it idles because of a sibling; 0 if it does not. */
	u64	core_forced_since_ns __momentary __timestamp;
	u64	core_forced_ns;		/* how long it has, all times before together */
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

SCXU_QUEUE_VTIME_PER_LLC(waiting);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;

/* How long a task may wait before another group's on the same core get no more turns, ns. */
const volatile u64 drain_ns = 10 * SCXU_NSEC_PER_MSEC;

/* The depth of the cgroups that are trust groups, below the root. */
const volatile u32 depth = 1;

/*
 * Statistics: times that a CPU was forced to idle, and how long all together; turns refused so that a core drains; tasks
 * found running without a claim, which only a swap or a move between cgroups brings about.
 */
u64 nr_forced_idle, forced_idle_ns, nr_drains, nr_intruders;

#define SIBLINGS	8	/* CPUs of a core at most */
#define TRIES		64	/* of an exchange that others spoil */
#define LOOK		256	/* tasks that one dispatch looks at */
#define WAKE_LOOK	256	/* CPUs that one wake-up looks at */
#define NO_GROUP	0U	/* may run beside anyone */
#define CONFLICT	(~0U)
#define RT_PRIOS	100	/* the kernel's MAX_RT_PRIO: lower ones are of higher classes */

/*
 * The trust group of @p. The lower half of a cgroup's id, its inode number, is no other living cgroup's. Everything is read
 * as by a debugger, because the current task of another CPU may be no better than an address.
 */
static __noinline u32 group_of(struct task_struct *p)
{
	struct cgroup *cgrp, *above = NULL;
	u32 level;

	if (!p || BPF_CORE_READ(p, flags) & (PF_KTHREAD | PF_IDLE))
		return NO_GROUP;
	cgrp = BPF_CORE_READ(p, cgroups, dfl_cgrp);
	level = BPF_CORE_READ(cgrp, level);
	if (level > depth) {
		bpf_probe_read_kernel(&above, sizeof(above),
				      (void *)cgrp + bpf_core_field_offset(struct cgroup, ancestors) +
				      depth * sizeof(void *));
		cgrp = above;
	}
	return (u32)BPF_CORE_READ(cgrp, kn, id) ?: 1;
}

static __always_inline u32 claim_run(void)
{
	return scxu_run_id() & 0xffffff;
}

/* Who holds a claim. One of an earlier run is void. */
static __always_inline u32 claim_holders(u64 claim)
{
	return (u32)claim >> 8 == claim_run() ? claim & 0xff : 0;
}

static __always_inline u32 claim_group(u64 claim)
{
	return claim >> 32;
}

static __always_inline u64 claim_of(u32 group, u32 holders)
{
	return (u64)group << 32 | claim_run() << 8 | holders;
}

static __always_inline u64 claim_read(struct policy_cpu *core)
{
	return *(volatile u64 *)&core->core_claim;
}

/*
 * What follows is global where it can be: the verifier looks at such a function once, and not again at each call inside a
 * loop.
 */

/* The bit of @cpu among its siblings. */
__noinline u32 holder_bit(s32 cpu)
{
	s32 at = scxu_core_of_cpu(cpu), i;

	bpf_for(i, 0, SIBLINGS) {
		if (at == cpu)
			return 1U << i;
		at = scxu_next_sibling(at);
	}
	return 1U << (SIBLINGS - 1);
}

/* Bring the record of @cpu up to date. */
__noinline int open_cpu(s32 cpu)
{
	return !!scxu_cpu_state(cpu);
}

static __always_inline struct policy_cpu *opened_cpu(s32 cpu)
{
	return scxu_cpu_peek(cpu) ?: (open_cpu(cpu), scxu_cpu_peek(cpu));
}

/* The record that stands for the core of @cpu. */
static __always_inline struct policy_cpu *core_state(s32 cpu)
{
	return opened_cpu(scxu_core_of_cpu(cpu));
}

/* Claim the core of @cpu for @group, whatever @cpu held before. */
__noinline int claim(s32 cpu, u32 group)
{
	struct policy_cpu *core = core_state(cpu);
	u32 bit = holder_bit(cpu), i, others;
	u64 old, new;

	if (!core)
		return 0;
	bpf_for(i, 0, TRIES) {
		old = claim_read(core);
		others = claim_holders(old) & ~bit;
		if (others && claim_group(old) != group)
			return 0;
		new = claim_of(group, others | bit);
		if (new == old || __sync_val_compare_and_swap(&core->core_claim, old, new) == old)
			return 1;
	}
	return 0;
}

/* Is the core of @cpu claimed for @group? */
__noinline int is_claimed_for(u32 group, s32 cpu)
{
	struct policy_cpu *core = core_state(cpu);
	u64 held;

	if (!core)
		return 0;
	held = claim_read(core);
	return claim_holders(held) && claim_group(held) == group;
}

/* @cpu gives its claim back: did it have one? */
__noinline int unclaim(s32 cpu)
{
	struct policy_cpu *core = core_state(cpu);
	u32 bit = holder_bit(cpu), i;
	u64 old, new;

	if (!core)
		return 0;
	bpf_for(i, 0, TRIES) {
		old = claim_read(core);
		if (!(claim_holders(old) & bit))
			return 0;
		new = claim_of(claim_group(old), claim_holders(old) & ~bit);
		if (__sync_val_compare_and_swap(&core->core_claim, old, new) == old)
			return 1;
	}
	return 0;
}

/* The group that the siblings of @cpu are running: NO_GROUP, one, or CONFLICT, which a swap may leave behind. */
__noinline u32 group_beside(s32 cpu)
{
	u32 beside = scxu_zero();
	s32 at = cpu, i;

	bpf_for(i, 0, SIBLINGS) {
		struct task_struct *curr;
		u32 group;

		at = scxu_next_sibling(at);
		if (at == cpu)
			break;
		curr = __COMPAT_scx_bpf_cpu_curr(at);
		group = group_of(curr);
		if (group == NO_GROUP)
			continue;
		if (beside && beside != group)
			beside = CONFLICT;
		else
			beside = group;
	}
	return beside;
}

static __always_inline bool may_be_beside(u32 group, s32 cpu)
{
	u32 beside = group_beside(cpu);

	return !beside || beside == group;
}

/* Does @cpu run a task of a higher class, which no turn that ends here makes leave? */
__noinline int runs_higher_class(s32 cpu)
{
	struct task_struct *curr = __COMPAT_scx_bpf_cpu_curr(cpu);

	return curr && BPF_CORE_READ(curr, prio) < RT_PRIOS;
}

/* The group of a task of a higher class that a sibling of @cpu runs; NO_GROUP if there is none. */
__noinline u32 higher_class_beside(s32 cpu)
{
	u32 beside = scxu_zero();
	s32 at = cpu, i;

	bpf_for(i, 0, SIBLINGS) {
		at = scxu_next_sibling(at);
		if (at == cpu)
			break;
		if (runs_higher_class(at))
			beside = group_of(__COMPAT_scx_bpf_cpu_curr(at)) ?: beside;
	}
	return beside;
}

/* Could @p, which may not run on @cpu, have a turn on one of its siblings? */
static __noinline bool may_run_beside(struct task_struct *p, s32 cpu)
{
	s32 at = cpu, i;

	bpf_for(i, 0, SIBLINGS) {
		at = scxu_next_sibling(at);
		if (at == cpu)
			break;
		if (scxu_may_take(p, at) && !runs_higher_class(at))
			return true;
	}
	return false;
}

/* Let the siblings of @cpu that idle, or are about to, look again. */
__noinline int wake_siblings(s32 cpu)
{
	s32 at = cpu, i;

	bpf_for(i, 0, SIBLINGS) {
		at = scxu_next_sibling(at);
		if (at == cpu)
			break;
		scx_bpf_kick_cpu(at, SCX_KICK_IDLE);
	}
	return 0;
}

/*
 * Let the idle siblings of @cpu look again: if someone waits; and those that were forced to idle also if no one does any
 * longer. They do when the switch that @cpu is in is complete: a kick is an interrupt.
 */
__noinline int kick_siblings(s32 cpu)
{
	bool anyone = scx_bpf_dsq_nr_queued(scxu_queue_of_llc(waiting, scxu_llc_of_cpu(cpu))) > 0;
	s32 at = cpu, i;

	bpf_for(i, 0, SIBLINGS) {
		struct policy_cpu *c;

		at = scxu_next_sibling(at);
		if (at == cpu)
			break;
		c = scxu_cpu_peek(at);
		if (!anyone && !(c && c->core_forced_since_ns))
			continue;
		if (scx_bpf_test_and_clear_cpu_idle(at))
			scx_bpf_kick_cpu(at, SCX_KICK_IDLE);
	}
	return 0;
}

/* @cpu is forced to idle from now on, or no longer. */
__noinline int note_forced(s32 cpu, bool forced, u64 now)
{
	struct policy_cpu *c = opened_cpu(cpu);
	u64 idle;

	if (!c)
		return 0;
	if (forced == !!c->core_forced_since_ns)
		return 0;
	if (forced) {
		c->core_forced_since_ns = now;
		__sync_fetch_and_add(&nr_forced_idle, 1);
		return 0;
	}
	idle = scxu_ns_since(c->core_forced_since_ns, now);
	c->core_forced_since_ns = 0;
	c->core_forced_ns += idle;
	__sync_fetch_and_add(&forced_idle_ns, idle);
	return 0;
}

/*
 * Wake an idle CPU that may take @p: its own, or one of a core that is idle, or one whose core its group holds.
 */
static __noinline int wake_for(struct task_struct *p)
{
	s32 cpu = scx_bpf_task_cpu(p), cpus = scx_bpf_nr_cpu_ids(), i;
	u32 group;

	if (scx_bpf_test_and_clear_cpu_idle(cpu))
		goto kick;
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, SCX_PICK_IDLE_CORE);
	if (cpu >= 0)
		goto kick;
	group = group_of(p);
	if (cpus > WAKE_LOOK)
		cpus = WAKE_LOOK;
	bpf_for(i, 0, cpus) {
		struct policy_cpu *core;
		u64 held;

		if (!bpf_cpumask_test_cpu(i, p->cpus_ptr))
			continue;
		core = scxu_cpu_peek(scxu_core_of_cpu(i));
		if (!core)
			continue;
		held = claim_read(core);
		if (group && claim_holders(held) && claim_group(held) != group)
			continue;
		if (scx_bpf_test_and_clear_cpu_idle(i)) {
			scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
			break;
		}
	}
	return 0;
kick:
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	return 0;
}

/* Which CPU takes it is seen when one has looked at its siblings. */
s32 BPF_STRUCT_OPS(core_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(core_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t;
	u64 clock;

	if (scxu_is_per_cpu_kthread(p)) {
		scxu_enqueue_per_cpu_kthread(p, slice_ns, enq_flags);
		return;
	}
	t = scxu_task_state(p);
	clock = scxu_global_state()->vtime_now;
	if (t)
		t->core_waits_since_ns = scx_bpf_now();
	scx_bpf_dsq_insert_vtime(p, scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p))), slice_ns,
				 t ? scxu_vtime_place(t, &clock, scxu_vtime_credit(enq_flags, slice_ns)) : clock, enq_flags);
	wake_for(p);
}

/* What one look at the queues gave. */
#define TAKEN		1
#define REFUSED		2	/* someone waits whose group may not run here now */
#define DRAINS		4	/* and for so long that no other may have another turn */
#define FOR_SIBLING	8	/* someone whose group may not run here waits for a sibling */

/*
 * What it means that @p, of @group, waits for the core of @cpu: DRAINS if it has since before @due_at. Not where a task of a
 * higher class keeps it out, because nobody's turn is in its way then. One without a stamp waits since before the swap.
 */
static __always_inline u32 claim_to_core(struct task_struct *p, u32 group, s32 cpu, u64 due_at)
{
	struct policy_task *t = scxu_task_peek(p);
	u32 kept_out_by;

	if (t && t->core_waits_since_ns && !time_before(t->core_waits_since_ns, due_at))
		return 0;
	kept_out_by = higher_class_beside(cpu);
	return !kept_out_by || kept_out_by == group ? DRAINS : 0;
}

/*
 * Take from the queue of @llc the first that may run on @cpu and is before @limit, the virtual time of the task that could go
 * on instead; 0 if none could.
 */
__noinline u32 take(u32 llc, s32 cpu, u32 beside, u64 due_at, u64 limit)
{
	u64 queue = scxu_queue_of_llc(waiting, llc);
	u32 looked = scxu_zero(), found = scxu_zero();
	bool has_siblings = scxu_next_sibling(cpu) != cpu;
	struct task_struct *p;

	bpf_for_each(scx_dsq, p, queue, 0) {
		u32 group;

		if (++looked > LOOK)
			break;
		if (limit && !time_before(p->scx.dsq_vtime, limit))
			break;
		if (!scxu_may_take(p, cpu)) {
			if (!has_siblings || !may_run_beside(p, cpu))
				continue;
			group = group_of(p);
			if (group != NO_GROUP && group != beside && !is_claimed_for(group, cpu))
				found |= REFUSED | FOR_SIBLING | claim_to_core(p, group, cpu, due_at);
			continue;
		}
		group = group_of(p);
		if (group != NO_GROUP) {
			/* Beside once more: a sibling gives its claim back just before it leaves its task. */
			if ((found & DRAINS) || (beside && beside != group) || !claim(cpu, group) ||
			    !may_be_beside(group, cpu)) {
				found |= REFUSED | claim_to_core(p, group, cpu, due_at);
				continue;
			}
		}
		if (scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0)) {
			found |= TAKEN;
			break;
		}
	}
	return found;
}

static __noinline int core_age(void)
{
	scxu_vtime_age_llcs(waiting, waiting, scxu_global_state()->vtime_now, vtime);
	return 0;
}

/*
 * Charge @p, which runs and may go on, for its turn so far, and begin the next: what it is at by now, or 0 where this policy
 * has not placed it. It is owed no more than if it had come to the queue again: the clock leaps where a task of little weight
 * runs, and one of much weight would go on for seconds until it had caught up.
 */
static __noinline u64 charge(struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	u64 *clock = &scxu_global_state()->vtime_now;

	if (!t)
		return 0;
	scxu_vtime_end(t, clock, scxu_vtime_of(scxu_run_ns(t, slice_ns), p->scx.weight));
	scxu_run_begin(t);
	if (t->vtime)
		t->vtime = scxu_vtime_clamp(t->vtime, *clock, SCXU_VTIME_MAX_LAG);
	return t->vtime;
}

/* @p, which runs and is charged, has another turn. */
static __noinline int go_on(struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	scx_bpf_task_set_slice(p, slice_ns);
	if (t)
		scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
	return 0;
}

void BPF_STRUCT_OPS(core_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 llcs = scxu_nr_llcs(), own = scxu_llc_of_cpu(cpu), beside = group_beside(cpu), found = scxu_zero(), i;
	bool wants_more = prev && (prev->scx.flags & SCX_TASK_QUEUED);
	u64 now = scx_bpf_now(), limit = 0;
	u32 group = NO_GROUP;

	if (scxu_aging_due())
		core_age();
	if (wants_more) {
		group = group_of(prev);
		limit = charge(prev);
		if (group != NO_GROUP && beside && beside != group)
			limit = 0;
	}
	bpf_for(i, 0, llcs) {
		u32 llc = own + i;

		if (llc >= llcs)
			llc -= llcs;
		found |= take(llc, cpu, beside, now - drain_ns, limit);
		if (found & (TAKEN | DRAINS))
			break;
	}
	if (found & TAKEN)
		return;
	if (wants_more) {
		/* Left alone, the kernel goes on with it. */
		if (group == NO_GROUP || ((!beside || beside == group) && claim(cpu, group) && !(found & DRAINS))) {
			go_on(prev);
			return;
		}
		if (found & DRAINS)
			__sync_fetch_and_add(&nr_drains, 1);
		scxu_force_idle_cpu(cpu);
		return;
	}
	note_forced(cpu, !!(found & REFUSED), now);
	/* It was idle and stays so. Else the claim is given back when it is idle, see below. */
	if (!prev && unclaim(cpu))
		kick_siblings(cpu);
	/* A sibling may have looked just before this CPU left the task that kept it from its own. */
	if ((found & FOR_SIBLING) && !beside)
		wake_siblings(cpu);
}

void BPF_STRUCT_OPS(core_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 group = group_of(p);
	u64 now = scx_bpf_now();

	note_forced(cpu, false, now);
	if (group != NO_GROUP) {
		if (!claim(cpu, group)) {
			__sync_fetch_and_add(&nr_intruders, 1);
			scx_bpf_task_set_slice(p, 0);
			scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
		}
	} else if (scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL_ON | cpu) <= 0) {
		/* Else the claim is for who comes next. */
		unclaim(cpu);
	}
	kick_siblings(cpu);
	if (!t)
		return;
	scxu_run_begin(t);
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
}

/* A task that has gone to another cgroup while it ran, without the scheduler being told. */
void BPF_STRUCT_OPS(core_tick, struct task_struct *p)
{
	struct policy_cpu *core = scxu_cpu_peek(scxu_core_of_cpu(scx_bpf_task_cpu(p)));
	u32 group = group_of(p);

	if (core && group != NO_GROUP && claim_holders(claim_read(core)) && claim_group(claim_read(core)) != group)
		scx_bpf_task_set_slice(p, 0);
}

void BPF_STRUCT_OPS(core_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);
	s32 cpu = scx_bpf_task_cpu(p);

	/*
	 * It has time left: a task of a higher class takes the CPU. The kernel would put it back without asking; it comes
	 * to enqueue instead. In all other cases dispatch has already claimed the core for who comes next, or will.
	 */
	if (runnable && p->scx.slice) {
		scx_bpf_task_set_slice(p, 0);
		unclaim(cpu);
	}
	if (t)
		scxu_vtime_end(t, &scxu_global_state()->vtime_now,
			  scxu_vtime_of(scxu_run_ns(t, slice_ns), p->scx.weight));
}

/* However it came to idle: without dispatch being asked, too. */
void BPF_STRUCT_OPS(core_update_idle, s32 cpu, bool idle)
{
	if (idle && unclaim(cpu))
		kick_siblings(cpu);
}

SCXU_POLICY_DEFINE("scx_core",
	      .select_cpu	= (void *)core_select_cpu,
	      .enqueue		= (void *)core_enqueue,
	      .dispatch		= (void *)core_dispatch,
	      .running		= (void *)core_running,
	      .tick		= (void *)core_tick,
	      .stopping		= (void *)core_stopping,
	      .update_idle	= (void *)core_update_idle,
	      .flags		= SCX_OPS_ENQ_EXITING | SCX_OPS_ENQ_MIGRATION_DISABLED | SCX_OPS_KEEP_BUILTIN_IDLE);

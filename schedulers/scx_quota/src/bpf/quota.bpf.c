/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_quota: cpu.max, kept by the scheduler. What a cgroup's tasks run is charged to it and to each cgroup above it that has
 * a limit. One that has used its quota up is throttled, and with it all below: its tasks wait on a queue of their own
 * cgroup's until enough periods have begun to pay for what they used. Nothing is forgiven, so that the share is exact over
 * some periods however coarse the ticks are. Everything else is as in scx_mini.
 *
 * Limits are read where the kernel has them, each time. The accounts are columns: another scheduler leaves them alone, and
 * this one goes on with them.
 */
#include <scx_upgrade/lib/aging.bpf.h>
#include <scx_upgrade/lib/timer.bpf.h>
#include <scx_upgrade/lib/cgroup.bpf.h>
#include <scx_upgrade/lib/idle.bpf.h>
#include <scx_upgrade/lib/force_idle.bpf.h>
#include <scx_upgrade/lib/slice.bpf.h>
#include <scx_upgrade/lib/vtime.bpf.h>

struct policy_task {
	SCXU_VTIME_TASK_COLUMNS;
	SCXU_RUN_TASK_COLUMNS;
	/* Up to when its cgroups have been charged, in the run of the policy that quota_gen names. */
	u64	quota_charged_at_ns __momentary __timestamp;
	u64	quota_parked_at_ns __momentary __timestamp;	/* since when it waits for a quota */
	u32	quota_gen __momentary;
	u32	quota_pass __momentary;		/* it has waited so long that it is let through once */
} __policy_state;

struct policy_cgroup {
	u64	quota_used_ns;		/* what it has still to pay for, and has used in this period */
	u64	quota_began_ns __timestamp;	/* when the period began */
	u64	quota_since_ns __momentary __timestamp;	/* since when it is throttled; 0 if it is not */
	u64	quota_throttled_ns;	/* for how long it has been, all times before together */
	u64	quota_throttlings;	/* how many times */
} __policy_state;

struct policy_global {
	SCXU_VTIME_CLOCK_COLUMNS;
} __policy_state;

SCXU_QUEUE_VTIME_PER_LLC(waiting);
SCXU_QUEUE_FIFO_PER_CGROUP(parked);

/* Longest time on the CPU before the next task has its turn, ns. */
const volatile u64 slice_ns = 5 * SCXU_NSEC_PER_MSEC;

/*
 * A task that has waited for a quota for so long has one turn all the same, which is charged, ns. It may hold a lock that
 * others wait for; and the kernel ejects a scheduler under which a task waits for 30 s.
 */
const volatile u64 patience_ns = 5 * SCXU_NSEC_PER_SEC;

/*
 * Statistics: put on an idle CPU at once, or queued; parked because of a quota, and of these let through by patience;
 * cgroups throttled.
 */
u64 nr_direct, nr_queued, nr_parked, nr_let_through, nr_throttlings;

#define LEVELS		32	/* of nested cgroups */
#define LOOK		32	/* tasks that one dispatch looks at */
#define AT_A_TIME	8	/* tasks that one dispatch brings back from one cgroup */
/* A queue counts as parked for so long after the last task was sent there, which may still be on its way. */
#define LINGER_NS	SCXU_NSEC_PER_SEC

/* By number of a per-cgroup queue: when to look at it, and when a task was last sent there. */
struct parking {
	u64	look_at_ns;
	u64	sent_at_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCX_UPGRADE_MAX_CGROUPS);
	__type(key, u32);
	__type(value, struct parking);
} parkings SEC(".maps");

/* Those numbers of which there may be tasks; when to look at the first of them; the run that this is known for. */
u64 parked_bits[SCX_UPGRADE_MAX_CGROUPS / 64] SEC(".data.parked");
u64 look_at_ns SEC(".data.parked");
u32 known_in SEC(".data.parked");

/* A cgroup's own account, brought up to @now: 0, or when it has paid for what it used. */
static __noinline u64 quota_settle(struct policy_cgroup *cg, u64 quota, u64 period, u64 now)
{
	u64 began, used, passed, since;

	if (!cg || !quota || !period)
		return 0;
	began = *(volatile u64 *)&cg->quota_began_ns;
	if (!began) {
		__sync_val_compare_and_swap(&cg->quota_began_ns, 0, now);
		began = *(volatile u64 *)&cg->quota_began_ns;
	}
	passed = scxu_ns_since(began, now);
	if (passed >= period) {
		u64 periods = passed / period;

		/* Whoever moves the beginning on pays. */
		if (__sync_val_compare_and_swap(&cg->quota_began_ns, began, began + periods * period) == began) {
			used = *(volatile u64 *)&cg->quota_used_ns;
			__sync_fetch_and_add(&cg->quota_used_ns,
					     -(periods > used / quota ? used : periods * quota));
		}
		began = *(volatile u64 *)&cg->quota_began_ns;
	}
	used = *(volatile u64 *)&cg->quota_used_ns;
	since = *(volatile u64 *)&cg->quota_since_ns;
	if (used < quota) {
		if (since && __sync_val_compare_and_swap(&cg->quota_since_ns, since, 0) == since)
			__sync_fetch_and_add(&cg->quota_throttled_ns, scxu_ns_since(since, now));
		return 0;
	}
	if (!since && !__sync_val_compare_and_swap(&cg->quota_since_ns, 0, now)) {
		__sync_fetch_and_add(&cg->quota_throttlings, 1);
		__sync_fetch_and_add(&nr_throttlings, 1);
	}
	return began + used / quota * period;
}

/*
 * Charge @ran ns to every cgroup with a limit that @p is in. When may it run again: 0, at once; else the time.
 */
static __noinline u64 quota_walk(struct task_struct *p, u64 ran, u64 now)
{
	struct cgroup *cgrp, *at;
	u64 until = scxu_zero();
	s32 level, i;

	if (!p)
		return 0;
	cgrp = p->cgroups->dfl_cgrp;
	if (!cgrp)
		return 0;
	level = cgrp->level;
	bpf_for(i, 0, LEVELS) {
		u64 period = 0, quota, then;
		struct policy_cgroup *cg;

		if (level < 1)
			break;
		at = bpf_cgroup_ancestor(cgrp, level);
		if (!at)
			break;
		level--;
		quota = scxu_cgroup_quota(at, &period);
		cg = quota == SCXU_CGROUP_NO_QUOTA ? NULL : scxu_cgroup_peek(at);
		bpf_cgroup_release(at);
		if (!cg)
			continue;
		if (ran)
			__sync_fetch_and_add(&cg->quota_used_ns, ran);
		then = quota_settle(cg, quota, period, now);
		if (then > until)
			until = then;
	}
	return until;
}

/* Bring up to date the accounts of all cgroups that @p is in: quota_walk() leaves out those that are not. */
static __noinline int quota_open(struct task_struct *p)
{
	struct cgroup *cgrp, *at;
	s32 level, i;

	if (!p)
		return 0;
	cgrp = p->cgroups->dfl_cgrp;
	if (!cgrp)
		return 0;
	level = cgrp->level;
	bpf_for(i, 0, LEVELS) {
		if (level < 1)
			break;
		at = bpf_cgroup_ancestor(cgrp, level);
		if (!at)
			break;
		level--;
		scxu_cgroup_state(at);
		bpf_cgroup_release(at);
	}
	return 0;
}

/* Who ends, and the kernel's own threads, are never held up. */
static __always_inline bool is_exempt(struct task_struct *p)
{
	return p->flags & (PF_EXITING | PF_KTHREAD);
}

/* When @p may run: 0, at once. */
static __always_inline u64 quota_until(struct task_struct *p, u64 now)
{
	return is_exempt(p) ? 0 : quota_walk(p, 0, now);
}

/* Charge what @p, which is on a CPU, has run since it was last done. As quota_until(). */
static __noinline u64 quota_charge(struct task_struct *p, struct policy_task *t, u64 now)
{
	u64 ran = 0;

	if (!p || !t)
		return 0;
	/* What it did under another scheduler is not charged. */
	if (t->quota_gen == scxu_run_id())
		ran = scxu_ns_since(t->quota_charged_at_ns, now);
	t->quota_gen = scxu_run_id();
	t->quota_charged_at_ns = now;
	return is_exempt(p) ? 0 : quota_walk(p, ran, now);
}

/*
 * What follows is global where it can be: the verifier looks at such a function once, and not again at each call inside a
 * loop.
 */

/* Look at the parked tasks of @number at @at. */
__noinline int look_at(u32 number, u64 at)
{
	struct parking *parking = bpf_map_lookup_elem(&parkings, &number);

	if (parking)
		parking->look_at_ns = at;
	if (at < look_at_ns)
		look_at_ns = at;
	return 0;
}

/* A task is sent to the parked queue of @number, not before @until. */
__noinline int note_parked(u32 number, u64 until, u64 now)
{
	struct parking *parking = bpf_map_lookup_elem(&parkings, &number);

	if (!parking)
		return 0;
	parking->sent_at_ns = now;
	/* Sooner, if it is long: patience, or the limit, may end before. */
	look_at(number, until > now + 10 * SCXU_TIMER_MAX_NS ? now + 10 * SCXU_TIMER_MAX_NS : until);
	__sync_fetch_and_or(&parked_bits[number / 64 & (SCX_UPGRADE_MAX_CGROUPS / 64 - 1)], 1ULL << (number & 63));
	__sync_fetch_and_add(&nr_parked, 1);
	scxu_timer_start(until - now);
	return 0;
}

/* The number of the parked queue for @p. */
static __noinline u32 parked_number(struct task_struct *p)
{
	struct cgroup *cgrp;

	if (!p)
		return 0;
	cgrp = p->cgroups->dfl_cgrp;
	return cgrp ? scxu_cgroup_index(cgrp) & (SCX_UPGRADE_MAX_CGROUPS - 1) : 0;
}

/*
 * Bring back those who may run of the parked queue of @number. They wait in the order in which they came; a queue is one
 * cgroup's, so who must wait holds up no one who need not.
 */
__noinline int unpark(u32 number, u64 now)
{
	u64 queue = scxu_cgroup_queue(parked, number), next = scxu_zero(), clock = scxu_global_state()->vtime_now;
	u32 moved = scxu_zero();
	struct parking *parking;
	struct task_struct *p;

	bpf_for_each(scx_dsq, p, queue, 0) {
		struct policy_task *t = scxu_task_peek(p);
		u64 until = quota_until(p, now);

		if (until && t && scxu_ns_since(t->quota_parked_at_ns, now) > patience_ns) {
			t->quota_pass = 1;
			until = 0;
			__sync_fetch_and_add(&nr_let_through, 1);
		}
		if (until) {
			next = until;
			break;
		}
		scx_bpf_dsq_move_set_vtime(BPF_FOR_EACH_ITER, t ? scxu_vtime_place(t, &clock, slice_ns) : clock);
		scx_bpf_dsq_move_vtime(BPF_FOR_EACH_ITER, p, scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p))), 0);
		if (++moved >= AT_A_TIME)
			break;
	}
	parking = bpf_map_lookup_elem(&parkings, &number);
	if (!parking)
		return moved;
	if (!next && scx_bpf_dsq_nr_queued(queue) <= 0) {
		if ((s64)(now - parking->sent_at_ns) > (s64)LINGER_NS)
			__sync_fetch_and_and(&parked_bits[number / 64 & (SCX_UPGRADE_MAX_CGROUPS / 64 - 1)],
					     ~(1ULL << (number & 63)));
		next = now + SCXU_TIMER_MAX_NS;
	}
	if (next > now + 10 * SCXU_TIMER_MAX_NS)
		next = now + 10 * SCXU_TIMER_MAX_NS;
	look_at(number, next ?: now);
	return moved;
}

/*
 * An earlier version, or this one in an earlier run, may have left tasks on any of the queues: look at all.
 */
__noinline int know_parked(void)
{
	u32 run = scxu_run_id(), known = known_in, i, queues = scxu_nr_cgroup_queues();

	if (known == run || __sync_val_compare_and_swap(&known_in, known, run) != known)
		return 0;
	bpf_for(i, 0, queues) {
		look_at(i, 0);
		__sync_fetch_and_or(&parked_bits[i / 64 & (SCX_UPGRADE_MAX_CGROUPS / 64 - 1)], 1ULL << (i & 63));
	}
	scxu_timer_start(0);
	return 0;
}

/* Bring back all who may run. */
__noinline int unpark_all(u64 now)
{
	u32 words = scxu_nr_cgroup_queues() / 64 + 1, w, b;

	if (now < look_at_ns)
		return 0;
	look_at_ns = ~0ULL;
	bpf_for(w, 0, words) {
		u64 bits = parked_bits[w & (SCX_UPGRADE_MAX_CGROUPS / 64 - 1)];

		if (!bits)
			continue;
		bpf_for(b, 0, 64) {
			u32 number = (w * 64 + b) & (SCX_UPGRADE_MAX_CGROUPS - 1);
			struct parking *parking;

			if (!(bits >> (b & 63) & 1))
				continue;
			parking = bpf_map_lookup_elem(&parkings, &number);
			if (!parking)
				continue;
			if (parking->look_at_ns > now)
				look_at(number, parking->look_at_ns);
			else
				unpark(number, now);
		}
	}
	return 0;
}

/* Where every CPU is idle no one dispatches, so wake those. A CPU that is not does it by itself. */
static u64 policy_timer(u64 now)
{
	u32 words = scxu_nr_cgroup_queues() / 64 + 1, cpus = scx_bpf_nr_cpu_ids(), i, any = scxu_zero();
	u64 at = look_at_ns;

	bpf_for(i, 0, words) {
		if (parked_bits[i & (SCX_UPGRADE_MAX_CGROUPS / 64 - 1)])
			any = 1;
	}
	if (!any)
		return 0;
	if (at > now)
		return at - now;
	bpf_for(i, 0, cpus) {
		if (scx_bpf_test_and_clear_cpu_idle(i))
			scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
	}
	return SCXU_NSEC_PER_MSEC;
}

s32 BPF_STRUCT_OPS(quota_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu;

	if (quota_until(p, scx_bpf_now()))
		return prev_cpu;
	cpu = scxu_idle_cpu(p, prev_cpu, wake_flags, &idle);
	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
		__sync_fetch_and_add(&nr_direct, 1);
	}
	return cpu;
}

void BPF_STRUCT_OPS(quota_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scx_bpf_now(), clock = scxu_global_state()->vtime_now, until;

	if (scxu_is_per_cpu_kthread(p)) {
		scxu_enqueue_per_cpu_kthread(p, slice_ns, enq_flags);
		return;
	}
	until = quota_until(p, now);
	if (until && !(t && t->quota_pass)) {
		u32 number = parked_number(p);

		if (t)
			t->quota_parked_at_ns = now;
		note_parked(number, until, now);
		scx_bpf_dsq_insert(p, scxu_cgroup_queue(parked, number), slice_ns, enq_flags);
		return;
	}
	scx_bpf_dsq_insert_vtime(p, scxu_queue_of_llc(waiting, scxu_llc_of_cpu(scx_bpf_task_cpu(p))), slice_ns,
				 t ? scxu_vtime_place(t, &clock, scxu_vtime_credit(enq_flags, slice_ns)) : clock, enq_flags);
	__sync_fetch_and_add(&nr_queued, 1);
	scxu_wake_idle_cpu(p);
}

/* Take one from the queue of @llc for @cpu. Those whose cgroup was throttled while they waited are parked. */
__noinline int take(u32 llc, s32 cpu, u64 now)
{
	u64 queue = scxu_queue_of_llc(waiting, llc);
	u32 looked = scxu_zero(), taken = scxu_zero();
	struct task_struct *p;

	bpf_for_each(scx_dsq, p, queue, 0) {
		struct policy_task *t;
		u64 until;

		if (++looked > LOOK)
			break;
		if (!scxu_may_take(p, cpu))
			continue;
		t = scxu_task_peek(p);
		until = quota_until(p, now);
		if (until && !(t && t->quota_pass)) {
			u32 number = parked_number(p);

			if (t)
				t->quota_parked_at_ns = now;
			note_parked(number, until, now);
			scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, scxu_cgroup_queue(parked, number), 0);
			continue;
		}
		if (scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0)) {
			taken = 1;
			break;
		}
	}
	/* Whoever the kernel finds behind those looked at: if its cgroup is throttled, the next tick ends its turn. */
	if (!taken && looked > LOOK)
		return scx_bpf_dsq_move_to_local(queue, 0);
	return taken;
}

static __noinline int quota_age(void)
{
	scxu_vtime_age_llcs(waiting, waiting, scxu_global_state()->vtime_now, vtime);
	return 0;
}

void BPF_STRUCT_OPS(quota_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 llcs = scxu_nr_llcs(), own = scxu_llc_of_cpu(cpu), i;
	u64 now = scx_bpf_now();

	if (scxu_aging_due())
		quota_age();
	know_parked();
	unpark_all(now);
	bpf_for(i, 0, llcs) {
		u32 llc = own + i;

		if (llc >= llcs)
			llc -= llcs;
		if (take(llc, cpu, now))
			return;
	}
	if (!prev || !(prev->scx.flags & SCX_TASK_QUEUED))
		return;
	/* Left alone, the kernel goes on with it. */
	if (quota_charge(prev, scxu_task_peek(prev), now))
		scxu_force_idle_cpu(cpu);
	else
		scx_bpf_task_set_slice(prev, slice_ns);
}

void BPF_STRUCT_OPS(quota_running, struct task_struct *p)
{
	struct policy_task *t = scxu_task_state(p);

	if (!t)
		return;
	quota_open(p);
	scxu_run_begin(t);
	t->quota_charged_at_ns = t->last_run_at_ns;
	t->quota_gen = scxu_run_id();
	t->quota_pass = 0;
	scxu_vtime_begin(t, &scxu_global_state()->vtime_now);
}

void BPF_STRUCT_OPS(quota_tick, struct task_struct *p)
{
	if (quota_charge(p, scxu_task_state(p), scx_bpf_now()))
		scx_bpf_task_set_slice(p, 0);
}

void BPF_STRUCT_OPS(quota_stopping, struct task_struct *p, bool runnable)
{
	struct policy_task *t = scxu_task_state(p);
	u64 now = scx_bpf_now();

	if (!t)
		return;
	quota_charge(p, t, now);
	scxu_vtime_end(t, &scxu_global_state()->vtime_now, scxu_vtime_of(scxu_run_ns(t, slice_ns), p->scx.weight));
}

SCXU_POLICY_DEFINE("scx_quota",
	      .select_cpu	= (void *)quota_select_cpu,
	      .enqueue		= (void *)quota_enqueue,
	      .dispatch		= (void *)quota_dispatch,
	      .running		= (void *)quota_running,
	      .tick		= (void *)quota_tick,
	      .stopping		= (void *)quota_stopping);

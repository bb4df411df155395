/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The steps of a plan that call a policy's own conversions, and who may do them. Included by records.bpf.h, behind
 * scxu_host. In the host, and in a policy without SCXU_CONVERSIONS(), the compiler leaves all of it out but
 * scxu_must_wait().
 */
#ifndef __SCX_UPGRADE_CALL_BPF_H
#define __SCX_UPGRADE_CALL_BPF_H

#include <scx_upgrade/step.bpf.h>

/* The old value, and behind it the new one. Of words, because each has to be aligned as any type can be. */
struct scxu_conversion_args {
	u64	words[2 * SCX_UPGRADE_MAX_ARG / sizeof(u64)];
};

/*
 * The conversions that this object has. A tentative definition: SCXU_CONVERSIONS() gives it a value further down in
 * the policy's source, and where that is missing all are NULL. Constant either way, so that no call is indirect.
 */
struct scxu_converter {
	const volatile u64		*load;		/* of the policy, &scxu_sdk.load */
	struct scxu_conversion_args	*(*args)(void);	/* this CPU's */
	void				(*run)(u32 conversion, struct scxu_conversion_args *args);
};

static const struct scxu_converter scxu_converter;

/*
 * Room for the arguments of a conversion, or NULL in an object that has none. This CPU's own, and no one else's under a
 * record's lock: bpf_spin_lock() turns interrupts off. Before the lock, because it takes a helper. Not on the stack: a
 * verifier up to 6.16 confuses itself over stores there at an offset that it does not know.
 */
static __always_inline struct scxu_conversion_args *scxu_conversion_args(void)
{
	return scxu_converter.args ? scxu_converter.args() : NULL;
}

/* Are the plan's conversions those of this object? */
static __always_inline bool scxu_is_caller(volatile struct scxu_plan *plan)
{
	return scxu_converter.load && plan->caller == *scxu_converter.load;
}

/*
 * Does the plan call conversions that this object lacks, and is the one that has them sure to come? Then whoever is
 * here leaves the record as it is: an op of the old policy that is still in flight, which does not name what the plan
 * writes; or the host's own init_task and enable. Once the policy with the conversions is not the running one any more,
 * its sweep is over. What that has missed gets the rest of the plan, and the columns in question keep what they hold:
 * on the way forward their initial value, on the way back what their policy left.
 */
static __always_inline bool scxu_must_wait(volatile struct scxu_plan *plan, u64 active)
{
	u64 caller = plan->caller;

	return unlikely(caller) && !scxu_is_caller(plan) &&
	       caller == scxu_host.callers[active & (SCX_UPGRADE_NR_SLOTS - 1)];
}

/* The call steps of a plan on the data of one record, if they are this object's. */
static __always_inline void scxu_apply_calls(u8 *data, const u32 bytes, volatile struct scxu_plan *plan,
					    struct scxu_conversion_args *args)
{
	u32 i, n, first = plan->nr_steps;

	if (!scxu_converter.run || !args || !plan->caller || !scxu_is_caller(plan))
		return;
	bpf_for(i, first, first + plan->nr_call_steps) {
		volatile struct scxu_step *s = &plan->steps[i & (SCX_UPGRADE_MAX_STEPS - 1)];

		if (s->kind == SCXU_STEP_CALL) {
			scxu_converter.run(s->conversion, args);
			continue;
		}
		bpf_for(n, 0, s->count) {
			u32 from = s->from + n * s->from_stride, to = s->to + n * s->to_stride;

			if (s->kind == SCXU_STEP_ARG)
				scxu_store((u8 *)args, to & (sizeof(*args) - 1), s->to_size,
					  scxu_load(data, bytes, from, s->from_size));
			else
				scxu_store(data, to & (bytes - 1), s->to_size,
					  scxu_load((u8 *)args, sizeof(*args), from, s->from_size));
		}
	}
}

#endif /* __SCX_UPGRADE_CALL_BPF_H */

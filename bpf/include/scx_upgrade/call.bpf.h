/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The steps of a plan that call a policy's own conversions. records.bpf.h includes this after it defines scxu_host. In the
 * host, and in a policy without SCXU_CONVERSIONS(), the compiler drops all of it except scxu_must_wait().
 */
#ifndef __SCX_UPGRADE_CALL_BPF_H
#define __SCX_UPGRADE_CALL_BPF_H

#include <scx_upgrade/step.bpf.h>

/* The old value and the new value. An array of words, because any type must be aligned in it. */
struct scxu_conversion_args {
	u64	words[2 * SCX_UPGRADE_MAX_ARG / sizeof(u64)];
};

/*
 * The conversions of this object. This is a tentative definition: SCXU_CONVERSIONS() later in the policy's source gives it a
 * value, and without it all members are NULL. It is constant in both cases, so the compiler makes direct calls.
 */
struct scxu_converter {
	const volatile u64		*load;		/* of the policy, &scxu_sdk.load */
	struct scxu_conversion_args	*(*args)(void);	/* this CPU's */
	void				(*run)(u32 conversion, struct scxu_conversion_args *args);
};

static const struct scxu_converter scxu_converter;

/*
 * The buffer for the arguments of a conversion, or NULL in an object without conversions. It is per CPU, and no other program
 * uses it under a record's lock, because bpf_spin_lock() disables interrupts. It is looked up before the lock is taken,
 * because the look-up is a helper call. It is not on the stack: a verifier up to 6.16 loses track of stores to the stack at a
 * variable offset.
 */
static __always_inline struct scxu_conversion_args *scxu_conversion_args(void)
{
	return scxu_converter.args ? scxu_converter.args() : NULL;
}

/* Does the plan call conversions of this object? */
static __always_inline bool scxu_is_caller(volatile struct scxu_plan *plan)
{
	return scxu_converter.load && plan->caller == *scxu_converter.load;
}

/*
 * Does the plan call conversions of another object, whose policy is active? Then the caller leaves the record as it is, for
 * that policy to migrate. The caller may be an op of the old policy that is still in flight, which does not use what the plan
 * writes, or the host's own init_task or enable.
 *
 * Once that policy is no longer active, its sweep is over. A record that the sweep missed gets the rest of the plan without
 * the calls. The columns in question keep their value: in a swap the initial value, in a rollback what their policy last
 * stored.
 */
static __always_inline bool scxu_must_wait(volatile struct scxu_plan *plan, u64 active)
{
	u64 caller = plan->caller;

	return unlikely(caller) && !scxu_is_caller(plan) &&
	       caller == scxu_host.callers[active & (SCX_UPGRADE_NR_SLOTS - 1)];
}

/* Execute the call steps of a plan on the data of one record, if the plan calls conversions of this object. */
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

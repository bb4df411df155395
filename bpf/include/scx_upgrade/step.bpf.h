/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a plan does to a record: the port of state-migrate/src/step/{apply,arith}.rs, which is the reference and what
 * the tests compare with. Runs under the record's lock, so it calls nothing.
 */
#ifndef __SCX_UPGRADE_STEP_BPF_H
#define __SCX_UPGRADE_STEP_BPF_H

#include <scx_upgrade/abi.h>

/*
 * Loads and stores. The masks keep each access inside the record and naturally aligned, which is what the verifier has
 * to see and what a damaged plan cannot get around. Exact sizes: the neighbours may be written by an op at the same
 * time.
 */
static __always_inline u64 scx_load(u8 *data, const u32 bytes, u32 offset, u32 size)
{
	switch (size) {
	case 1:
		return *(volatile u8 *)(data + (offset & (bytes - 1)));
	case 2:
		return *(volatile u16 *)(data + (offset & (bytes - 2)));
	case 4:
		return *(volatile u32 *)(data + (offset & (bytes - 4)));
	case 8:
		return *(volatile u64 *)(data + (offset & (bytes - 8)));
	}
	return 0;
}

static __always_inline void scx_store(u8 *data, const u32 bytes, u32 offset, u32 size, u64 value)
{
	switch (size) {
	case 1:
		*(volatile u8 *)(data + (offset & (bytes - 1))) = value;
		break;
	case 2:
		*(volatile u16 *)(data + (offset & (bytes - 2))) = value;
		break;
	case 4:
		*(volatile u32 *)(data + (offset & (bytes - 4))) = value;
		break;
	case 8:
		*(volatile u64 *)(data + (offset & (bytes - 8))) = value;
		break;
	}
}

/* A number on its way: a sign and 64 bits, so that all of u64 and of s64 fits. Zero is not negative. */
struct scx_value {
	u64	magnitude;
	bool	negative;
};

static __always_inline u64 scx_add_saturated(u64 a, u64 b)
{
	return a + b < a ? ~0ULL : a + b;
}

/* @b is at most 2^31. In halves: clang turns a check by division into a 128-bit multiplication, which BPF lacks. */
static __always_inline u64 scx_mul_saturated(u64 a, u64 b)
{
	u64 high = (a >> 32) * b, low = (a & 0xffffffff) * b;

	return high >> 32 ? ~0ULL : scx_add_saturated(high << 32, low);
}

static __always_inline void scx_value_load(struct scx_value *v, u64 raw, u32 size, bool is_signed)
{
	u32 shift = (64 - size * 8) & 63;
	s64 value;

	if (!is_signed) {
		v->negative = false;
		v->magnitude = raw;
		return;
	}
	value = (s64)(raw << shift) >> shift;
	v->negative = value < 0;
	v->magnitude = value < 0 ? -(u64)value : value;
}

static __always_inline void scx_value_add(struct scx_value *v, s64 add)
{
	u64 magnitude = add < 0 ? -(u64)add : add;
	bool negative = add < 0;

	if (v->negative == negative) {
		v->magnitude = scx_add_saturated(v->magnitude, magnitude);
	} else if (v->magnitude > magnitude) {
		v->magnitude -= magnitude;
	} else {
		v->negative = negative && magnitude > v->magnitude;
		v->magnitude = magnitude - v->magnitude;
	}
}

static __always_inline void scx_value_scale(struct scx_value *v, s64 factor, s64 divisor, bool away)
{
	u64 mul = factor < 0 ? -(u64)factor : factor, div = divisor;

	/* A division takes longer than all the rest, and most rules have none. */
	if (divisor <= 1) {
		v->magnitude = scx_mul_saturated(v->magnitude, mul);
	} else {
		u64 whole = v->magnitude / div;
		u64 rest = scx_mul_saturated(v->magnitude - whole * div, mul);
		u64 part = rest / div;
		u64 up = away && part * div != rest;

		v->magnitude = scx_add_saturated(scx_mul_saturated(whole, mul), part + up);
	}
	v->negative = v->magnitude && v->negative != (factor < 0);
}

static __always_inline u64 scx_value_bits(const struct scx_value *v, u32 size, bool is_signed, bool is_bool)
{
	u64 max = is_bool ? 1 : ~0ULL >> ((64 - size * 8 + is_signed) & 63);
	u64 max_negative = is_signed ? max + 1 : 0;

	if (v->negative)
		return -(v->magnitude < max_negative ? v->magnitude : max_negative);
	return v->magnitude < max ? v->magnitude : max;
}

static __always_inline u64 scx_convert(u64 raw, volatile struct scx_step *s)
{
	struct scx_value v;
	u8 flags = s->flags;

	scx_value_load(&v, raw, s->from_size, flags & SCX_STEP_FROM_SIGNED);
	if (flags & SCX_STEP_RESCALE) {
		scx_value_add(&v, s->pre);
		scx_value_scale(&v, s->mul, s->div, flags & SCX_STEP_AWAY);
		scx_value_add(&v, s->add);
	}
	return scx_value_bits(&v, s->to_size, flags & SCX_STEP_TO_SIGNED, flags & SCX_STEP_TO_BOOL);
}

/*
 * The steps of a plan on the data of one record, call steps left out. One loop for steps and their repetitions:
 * `can_loop` lets the verifier see that it ends, for an instruction or two a round, where an iterator is three calls
 * into the kernel for each loop. (Its own limit, 250 ms or 2^23 rounds, is out of reach: 64 steps, done at most 4096
 * times.) So that the verifier does one round for all, the counters start from a @zero that it does not know, and are
 * masked: it would follow the sum of a number and a constant from round to round.
 */
static __always_inline void scx_apply_plan(u8 *data, const u32 bytes, volatile struct scx_plan *plan, u32 zero)
{
	u32 i = zero, n = zero;

	while (i < plan->nr_steps && can_loop) {
		volatile struct scx_step *s = &plan->steps[i & (SCX_UPGRADE_MAX_STEPS - 1)];
		u64 value = s->value;

		if (s->kind != SCX_STEP_STORE)
			value = scx_load(data, bytes, s->from + n * s->from_stride, s->from_size);
		if (s->kind == SCX_STEP_CONVERT)
			value = scx_convert(value, s);
		scx_store(data, bytes, s->to + n * s->to_stride, s->to_size, value);
		n = (n + 1) & 0xffff;
		if (n >= s->count) {
			n = zero;
			i = (i + 1) & (2 * SCX_UPGRADE_MAX_STEPS - 1);
		}
	}
}

#endif /* __SCX_UPGRADE_STEP_BPF_H */

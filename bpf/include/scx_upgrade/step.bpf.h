/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The interpreter of plans. A port of state-migrate/src/step/{apply,arith}.rs, which is the reference that the tests compare
 * it with. It runs under the record's lock, so it calls no helper.
 */
#ifndef __SCX_UPGRADE_STEP_BPF_H
#define __SCX_UPGRADE_STEP_BPF_H

#include <scx_upgrade/abi.h>

/*
 * Loads and stores. The masks keep each access inside the record and naturally aligned. The verifier requires that, and even
 * a damaged plan cannot get around it.
 *
 * A load reads the whole word and extracts its part. Without a branch the verifier follows one path instead of five.
 */
static __always_inline u64 scxu_load(u8 *data, const u32 bytes, u32 offset, u32 size)
{
	u64 word = *(volatile u64 *)(data + (offset & (bytes - 8)));
	u32 at = offset & 7;

	if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
		at = (8 - size - at) & 7;
	return word >> at * 8 & ~0ULL >> ((64 - size * 8) & 63);
}

/*
 * Store exactly @size bytes, because an op may write the neighbouring bytes at the same time. @offset is within the record. A
 * function of its own: when it returns, the verifier forgets @size and continues with one state. Inlined, Linux 6.16 would
 * follow every combination of sizes through the loop.
 */
static __noinline int scxu_store(u8 *data, u32 offset, u32 size, u64 value)
{
	switch (size) {
	case 1:
		*(volatile u8 *)(data + offset) = value;
		break;
	case 2:
		*(volatile u16 *)(data + (offset & ~1)) = value;
		break;
	case 4:
		*(volatile u32 *)(data + (offset & ~3)) = value;
		break;
	case 8:
		*(volatile u64 *)(data + (offset & ~7)) = value;
		break;
	}
	return 0;
}

/*
 * An intermediate value: a sign and 64 bits, so that every u64 and every s64 fits. Zero is not negative.
 *
 * The code below avoids branches and computes with bits, 0 or 1 in a u64. The verifier follows both sides of each branch, and
 * then all that comes after. A dozen branches in a row cost it thousands of instructions in each program that touches a
 * record.
 */
struct scxu_value {
	u64	magnitude;
	u64	negative;		/* 0 or 1 */
};

/* @value if @bit is 1, else 0. */
#define scxu_if(bit, value)	((value) & -(bit))

/* -@value if @bit is 1, else @value. */
#define scxu_negate_if(bit, value)	(((value) ^ -(bit)) + (bit))

/* 1 if @a is not 0. The barrier keeps clang from turning this into a branch. */
static __always_inline u64 scxu_is_set(u64 a)
{
	u64 any = a | -a;

	barrier_var(any);
	return any >> 63;
}

/* The 65th bit of a + b = @sum. */
static __always_inline u64 scxu_carry(u64 a, u64 b, u64 sum)
{
	return ((a & b) | ((a | b) & ~sum)) >> 63;
}

static __always_inline u64 scxu_add_saturated(u64 a, u64 b)
{
	return (a + b) | -scxu_carry(a, b, a + b);
}

static __always_inline u64 scxu_min(u64 a, u64 b)
{
	/* a - b is a + ~b + 1: a borrow is a missing carry. */
	u64 a_is_less = ((~a & b) | ((~a | b) & (a - b))) >> 63;

	return b ^ scxu_if(a_is_less, a ^ b);
}

/* @b is at most 2^31. In halves: clang turns an overflow check by division into a 128-bit multiplication, which BPF lacks. */
static __always_inline u64 scxu_mul_saturated(u64 a, u64 b)
{
	u64 high = (a >> 32) * b, low = (a & 0xffffffff) * b;

	return scxu_add_saturated(high << 32, low) | -scxu_is_set(high >> 32);
}

static __always_inline void scxu_value_load(struct scxu_value *v, u64 raw, u32 size, u64 is_signed)
{
	u32 shift = (64 - size * 8) & 63;
	u64 extended = (s64)(raw << shift) >> shift;
	u64 value = raw ^ scxu_if(is_signed, raw ^ extended);

	v->negative = value >> 63 & is_signed;
	v->magnitude = scxu_negate_if(v->negative, value);
}

/* In two's complement of 128 bits, of which 66 matter. */
static __always_inline void scxu_value_add(struct scxu_value *v, s64 add)
{
	u64 low = scxu_negate_if(v->negative, v->magnitude), sum = low + add;
	u64 high = (add >> 63) - v->negative + scxu_carry(low, add, sum);

	v->negative = high >> 63;
	/* The upper half of the magnitude: 0, or 1 if the magnitude does not fit. */
	high = (high ^ -v->negative) + (v->negative & ~scxu_is_set(sum));
	v->magnitude = scxu_negate_if(v->negative, sum) | -high;
}

static __always_inline void scxu_value_scale(struct scxu_value *v, s64 factor, s64 divisor, u64 away)
{
	u64 is_negative = (u64)factor >> 63, mul = scxu_negate_if(is_negative, (u64)factor), div = divisor;

	/* A division takes longer than everything else, and most rules have none. */
	if (divisor <= 1) {
		v->magnitude = scxu_mul_saturated(v->magnitude, mul);
	} else {
		u64 whole = v->magnitude / div;
		u64 rest = scxu_mul_saturated(v->magnitude - whole * div, mul);
		u64 part = rest / div;
		u64 up = away & scxu_is_set(part * div ^ rest);

		v->magnitude = scxu_add_saturated(scxu_mul_saturated(whole, mul), part + up);
	}
	v->negative = scxu_is_set(v->magnitude) & (v->negative ^ is_negative);
}

static __always_inline u64 scxu_value_bits(const struct scxu_value *v, u32 size, u64 is_signed, u64 is_bool)
{
	u64 max = ~0ULL >> ((64 - size * 8 + is_signed) & 63), limit;

	max ^= scxu_if(is_bool, max ^ 1);
	/* The range below zero is one larger than above, and empty for an unsigned type. */
	limit = scxu_if(is_signed | (v->negative ^ 1), max + v->negative);
	return scxu_negate_if(v->negative, scxu_min(v->magnitude, limit));
}

/* A flag of a step, as 0 or 1. */
static __always_inline u64 scxu_flag(u64 flags, u64 flag)
{
	u64 bit = flags / flag & 1;

	barrier_var(bit);
	return bit;
}

static __noinline u64 scxu_convert(u64 raw, volatile struct scxu_step *s)
{
	struct scxu_value v;
	u64 flags = s->flags;

	scxu_value_load(&v, raw, s->from_size, scxu_flag(flags, SCXU_STEP_FROM_SIGNED));
	if (flags & SCXU_STEP_RESCALE) {
		scxu_value_add(&v, s->pre);
		scxu_value_scale(&v, s->mul, s->div, scxu_flag(flags, SCXU_STEP_AWAY));
		scxu_value_add(&v, s->add);
	}
	return scxu_value_bits(&v, s->to_size, scxu_flag(flags, SCXU_STEP_TO_SIGNED), scxu_flag(flags, SCXU_STEP_TO_BOOL));
}

/*
 * Execute the steps of a plan on the data of one record, except the call steps. One loop covers the steps and their
 * repetitions. `can_loop` proves to the verifier that the loop ends, for an instruction or two in each iteration. An iterator
 * would be three calls into the kernel for each loop. The limit of can_loop, 250 ms or 2^23 iterations, is out of reach: 64
 * steps, at most 4096 times each.
 *
 * The verifier is to check one iteration for all. So the counters start from *@zero, whose value it does not know, and are
 * masked: it would follow the sum of a number and a constant from iteration to iteration. Each counter reads *@zero again,
 * because the verifier remembers that two copies of one value are equal, and would follow the iterations where they are not.
 */
static __always_inline void scxu_apply_plan(u8 *data, const u32 bytes, volatile struct scxu_plan *plan,
					   const volatile u32 *zero)
{
	u32 i = *zero & (2 * SCX_UPGRADE_MAX_STEPS - 1), n = *zero & 0xffff;

	while (i < plan->nr_steps && can_loop) {
		volatile struct scxu_step *s = &plan->steps[i & (SCX_UPGRADE_MAX_STEPS - 1)];
		u64 value = s->value;

		if (s->kind != SCXU_STEP_STORE)
			value = scxu_load(data, bytes, s->from + n * s->from_stride, s->from_size);
		if (s->kind == SCXU_STEP_CONVERT)
			value = scxu_convert(value, s);
		scxu_store(data, (s->to + n * s->to_stride) & (bytes - 1), s->to_size, value);
		n = (n + 1) & 0xffff;
		if (n >= s->count) {
			n = *zero & 0xffff;
			i = (i + 1) & (2 * SCX_UPGRADE_MAX_STEPS - 1);
		}
	}
}

#endif /* __SCX_UPGRADE_STEP_BPF_H */

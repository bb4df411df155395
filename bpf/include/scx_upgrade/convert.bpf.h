/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For policy authors: conversions of a column by the policy's own code, where no tag can express the rule.
 *
 *	struct histogram {			// the earlier version's type, field by field
 *		u32	bucket[8];
 *	};
 *
 *	struct policy_task {
 *		u64	avg_us __from(histogram) __convert(avg_from_hist) __inverse(hist_from_avg);
 *	} __policy_state;
 *
 *	SCXU_CONVERSION(avg_from_hist, struct histogram, u64)
 *	{
 *		u64 sum = 0, count = 0;
 *		u32 i;
 *
 *		bpf_for(i, 0, 8) {
 *			sum += (u64)from->bucket[i & 7] << i;
 *			count += from->bucket[i & 7];
 *		}
 *		if (count)
 *			*to = sum / count;
 *	}
 *
 *	SCXU_CONVERSION(hist_from_avg, u64, struct histogram)
 *	{
 *		...
 *	}
 *
 *	SCXU_CONVERSIONS(avg_from_hist, hist_from_avg);
 *
 * A conversion reads the old value, `from`, and writes the new value, `to`. Before a swap `to` holds the column's default,
 * and before a rollback the value that the older policy left. What the conversion does not write stays.
 *
 * It runs under the record's lock, so it can call no helper; loops by bpf_for() are fine. Both types must equal the columns'
 * types, field by field. The SDK checks that when it reads the policy. A type of more than SCX_UPGRADE_MAX_ARG bytes does not
 * compile.
 */
#ifndef __SCX_UPGRADE_CONVERT_BPF_H
#define __SCX_UPGRADE_CONVERT_BPF_H

#ifndef SCX_UPGRADE_DECLARE
#include <scx_upgrade/sweep.bpf.h>
#endif

/* SCXU_CONVERSION(@name, ...) makes this column from the earlier policy's column of the same name, or that of __from(). */
#define __convert(name)		__attribute__((btf_decl_tag("scx:convert=" #name)))

/* SCXU_CONVERSION(@name, ...) makes the earlier policy's column from this one, for a rollback. */
#define __inverse(name)		__attribute__((btf_decl_tag("scx:inverse=" #name)))

/* Begins the definition of a conversion. Its body follows. */
#define SCXU_CONVERSION(name, from_type, to_type)								\
	struct scxu_conversion_##name {										\
		typeof(from_type)	from;									\
		typeof(to_type)		to;									\
	};													\
	_Static_assert(sizeof(from_type) <= SCX_UPGRADE_MAX_ARG && sizeof(to_type) <= SCX_UPGRADE_MAX_ARG,	\
		       "a conversion takes and gives at most SCX_UPGRADE_MAX_ARG bytes");			\
	static __always_inline void name(const typeof(from_type) *from, typeof(to_type) *to)

/*
 * All conversions of the policy, once, after their definitions. User space finds a conversion and its types through the
 * struct; a conversion's number is its place there. The sweep's programs are part of it, because the host's programs do not
 * have these conversions.
 */
#define SCXU_CONVERSIONS(...)										\
	enum scxu_conversion { SCXU_EACH(SCXU_CONVERSION_NUMBER, __VA_ARGS__) };			\
	struct policy_conversions { SCXU_EACH(SCXU_CONVERSION_MEMBER, __VA_ARGS__) };			\
	/* Keeps the struct in the BTF. */								\
	const struct policy_conversions *const policy_conversions = NULL;				\
	struct {											\
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);						\
		__uint(max_entries, 1);									\
		__type(key, u32);									\
		__type(value, struct scxu_conversion_args);						\
	} scxu_conversions SEC(".maps");								\
	static __always_inline struct scxu_conversion_args *scxu_conversion_args_here(void)		\
	{												\
		u32 zero = 0;										\
													\
		return bpf_map_lookup_elem(&scxu_conversions, &zero);					\
	}												\
	static __noinline void scxu_run_conversion(u32 conversion, struct scxu_conversion_args *args)	\
	{												\
		void *from = args, *to = (void *)args + SCX_UPGRADE_MAX_ARG;				\
													\
		switch (conversion) {									\
		SCXU_EACH(SCXU_CONVERSION_CASE, __VA_ARGS__)						\
		}											\
	}												\
	SCXU_SWEEP_PROGRAMS										\
	static const struct scxu_converter scxu_converter = {						\
		.load	= &scxu_sdk.load,								\
		.args	= scxu_conversion_args_here,							\
		.run	= scxu_run_conversion,								\
	}

#define SCXU_CONVERSION_NUMBER(name)	SCXU_CONVERSION_##name,
#define SCXU_CONVERSION_MEMBER(name)	struct scxu_conversion_##name name;
#define SCXU_CONVERSION_CASE(name)	case SCXU_CONVERSION_##name: name(from, to); break;

/* macro(a) macro(b) ... for up to 81 arguments. */
#define SCXU_EACH(macro, ...)		__VA_OPT__(SCXU_RESCAN(SCXU_EACH_NEXT(macro, __VA_ARGS__)))
#define SCXU_EACH_NEXT(macro, a, ...)	macro(a) __VA_OPT__(SCXU_EACH_AGAIN SCXU_NO_ARGS (macro, __VA_ARGS__))
#define SCXU_EACH_AGAIN()		SCXU_EACH_NEXT
#define SCXU_NO_ARGS			()
#define SCXU_RESCAN(...)			SCXU_RESCAN_27(SCXU_RESCAN_27(SCXU_RESCAN_27(__VA_ARGS__)))
#define SCXU_RESCAN_27(...)		SCXU_RESCAN_9(SCXU_RESCAN_9(SCXU_RESCAN_9(__VA_ARGS__)))
#define SCXU_RESCAN_9(...)		SCXU_RESCAN_3(SCXU_RESCAN_3(SCXU_RESCAN_3(__VA_ARGS__)))
#define SCXU_RESCAN_3(...)		SCXU_RESCAN_1(SCXU_RESCAN_1(SCXU_RESCAN_1(__VA_ARGS__)))
#define SCXU_RESCAN_1(...)		__VA_ARGS__

#endif /* __SCX_UPGRADE_CONVERT_BPF_H */

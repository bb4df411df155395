/* SPDX-License-Identifier: GPL-2.0-only */
/* The types of converted columns, as each version has them. */
#ifndef __CONVERT_TYPES_BPF_H
#define __CONVERT_TYPES_BPF_H

struct histogram {
	u32	bucket[8];
};

struct pair {
	s32	low;
	u16	high;
	u8	tag;
};

/* Not in the order that the bytes of a u32 have. */
struct split {
	u16	high;
	u16	low;
};

/* As large as a conversion can take and give. */
struct digest {
	u64	word[8];
};

#endif /* __CONVERT_TYPES_BPF_H */

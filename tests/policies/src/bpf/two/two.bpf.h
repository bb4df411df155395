/* SPDX-License-Identifier: GPL-2.0-only */
/* What both sources of the policy share. */
#ifndef __TWO_BPF_H
#define __TWO_BPF_H

struct policy_task {
	u64	enqueued;
	u64	ran;
} __policy_state;

SCXU_QUEUE_FIFO(two_queue);

/* Defined by the source with the ops that place tasks. */
extern u64 nr_placed;

extern u64 two_slice(u64 ran);

#endif /* __TWO_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* Work items (bpf_wq), under their names in each kernel. */
#ifndef __SCX_UPGRADE_WORK_BPF_H
#define __SCX_UPGRADE_WORK_BPF_H

#include <scx/common.bpf.h>

extern int bpf_wq_init(struct bpf_wq *wq, void *p__map, unsigned int flags) __ksym __weak;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym __weak;
/* Up to about v6.19 the first, then the second. The kernel itself passes the last argument. */
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, int (*callback)(void *map, int *key, void *value),
				    unsigned int flags__k, void *aux__ign) __ksym __weak;
extern int bpf_wq_set_callback(struct bpf_wq *wq, int (*callback)(void *map, int *key, void *value),
			       unsigned int flags) __ksym __weak;

/* Queue @wq, a member of a value of @map, to run @callback. Initialising it again fails with -EBUSY, which does no harm. */
#define scxu_start_work(wq, map, callback)				\
do {									\
	bpf_wq_init(wq, map, 0);					\
	if (bpf_ksym_exists(bpf_wq_set_callback))			\
		bpf_wq_set_callback(wq, callback, 0);			\
	else								\
		bpf_wq_set_callback_impl(wq, callback, 0, NULL);	\
	bpf_wq_start(wq, 0);						\
} while (0)

#endif /* __SCX_UPGRADE_WORK_BPF_H */

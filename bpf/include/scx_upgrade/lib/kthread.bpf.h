/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Per-CPU kthreads. The rest of the machine waits for their work, and no other thread can do it.
 */
#ifndef __SCX_UPGRADE_KTHREAD_BPF_H
#define __SCX_UPGRADE_KTHREAD_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* Set when the kernel binds a kthread (kthread_bind(), kernel/kthread.c). A macro, so BTF does not have it. */
#define SCXU_PF_NO_SETAFFINITY	0x04000000

/*
 * A kthread that is bound to its CPU. The affinity alone does not tell: on a machine with one CPU every kthread may run on
 * one CPU only, even one that should run in idle time.
 */
static __always_inline bool scxu_is_per_cpu_kthread(struct task_struct *p)
{
	return (p->flags & PF_KTHREAD) && (p->flags & SCXU_PF_NO_SETAFFINITY) && p->nr_cpus_allowed == 1;
}

#endif /* __SCX_UPGRADE_KTHREAD_BPF_H */

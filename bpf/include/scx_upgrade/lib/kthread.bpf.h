/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel threads that belong to one CPU: the machine waits for them, and nobody else can do their work.
 */
#ifndef __SCX_UPGRADE_KTHREAD_BPF_H
#define __SCX_UPGRADE_KTHREAD_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* Set where the kernel binds a thread (kthread_bind(), kernel/kthread.c). In no BTF, since it is a macro. */
#define SCXU_PF_NO_SETAFFINITY	0x04000000

/*
 * A kernel thread of one CPU. Not one that merely may run on no other: on a machine with one CPU that is all of them, those
 * that are to run in idle time among them.
 */
static __always_inline bool scxu_is_per_cpu_kthread(struct task_struct *p)
{
	return (p->flags & PF_KTHREAD) && (p->flags & SCXU_PF_NO_SETAFFINITY) && p->nr_cpus_allowed == 1;
}

#endif /* __SCX_UPGRADE_KTHREAD_BPF_H */

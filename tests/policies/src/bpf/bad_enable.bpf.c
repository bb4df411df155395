/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks for a reattach, in which it then refuses every task: the kernel does not enable it. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

s32 BPF_STRUCT_OPS(bad_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return -EPERM;
}

SCXU_POLICY_DEFINE("bad_enable", PLAIN_OPS, .init_task = (void *)bad_init_task, .flags = SCX_OPS_ENQ_LAST);

/* SPDX-License-Identifier: GPL-2.0-only */
/* Defines a sleepable op, which a kernel up to 6.19 would run where it must not sleep. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

s32 BPF_STRUCT_OPS_SLEEPABLE(bad_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return 0;
}

SCXU_POLICY_DEFINE("bad_sleepable", PLAIN_OPS, .init_task = (void *)bad_init_task);

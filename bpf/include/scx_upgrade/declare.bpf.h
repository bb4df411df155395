/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For the second and each further source of a policy, in place of policy.bpf.h:
 *
 *	main.bpf.c	#include <scx_upgrade/policy.bpf.h>
 *	wake.bpf.c	#include <scx_upgrade/declare.bpf.h>
 *	policy.h	the structs of state, the queues, and what the sources call in each other; both include it
 *	build.rs	scx_upgrade_build::policy_of("my_policy", &["src/bpf/main.bpf.c", "src/bpf/wake.bpf.c"])
 *
 * Declares what policy.bpf.h defines: the maps, the global variables, and the functions that migrate a record. Any source may
 * have ops, declare queues, and use state and the helpers. Only the source with policy.bpf.h may have SCXU_POLICY_DEFINE()
 * and SCXU_CONVERSIONS(), and include lib/timer.bpf.h and lib/force_idle.bpf.h, which define maps of their own.
 */
#ifndef __SCX_UPGRADE_DECLARE_BPF_H
#define __SCX_UPGRADE_DECLARE_BPF_H

#ifdef __SCX_UPGRADE_ABI_H
#error "include declare.bpf.h before every other header of scx_upgrade"
#endif
#define SCX_UPGRADE_DECLARE

#include <scx_upgrade/policy.bpf.h>

#endif /* __SCX_UPGRADE_DECLARE_BPF_H */
